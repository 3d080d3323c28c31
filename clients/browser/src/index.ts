// Watches a share, and keeps a plain object of it up to date.
import type { ShareEvent } from "@rpcshare/types";
import { Merging, type WatchedShare } from "./share.js";

export type { WatchedShare } from "./share.js";
export type { ShareEvent } from "@rpcshare/types";

/**
 * - `connecting`: at the beginning, and again after the connection was lost
 * - `live`: the object is up to date, and stays so
 * - `gone`: there is no such share, or no longer
 * - `refused`: it is not for this viewer
 * - `closed`: by `close()`
 *
 * The last three are the end.
 */
export type State = "connecting" | "live" | "gone" | "refused" | "closed";

export interface Options {
  /** Called after each change, with what changed. */
  onChange?: (share: WatchedShare, event: ShareEvent) => void;
  onState?: (state: State) => void;
  /** For a share that not everybody may read. */
  token?: string;
}

export interface Watch {
  /** The share; empty until the first change. The same object all the time. */
  readonly share: WatchedShare;
  readonly state: State;
  close(): void;
}

/**
 * Watches a share until it is gone, or the watch is closed. Connections that are lost are made again.
 *
 * @param link Of the share, such as `https://share.example/share/9eiXoPTK`; a path before `/share/` is kept.
 */
export function watch(link: string | URL, options: Options = {}): Watch {
  const url = new URL(link, globalThis.location?.href);
  const [, base, id] = /^(.*)\/share\/([^/]+)\/?$/.exec(url.origin + url.pathname) ?? [];
  if (base === undefined || id === undefined) throw new TypeError(`not the link of a share: ${url.href}`);
  return new Watching(base, id, options);
}

const SHORTEST_WAIT = 500;
const LONGEST_WAIT = 30_000;

interface Source {
  close(): void;
}

class Watching implements Watch {
  readonly #merging = new Merging();
  readonly share = this.#merging.share;
  state: State = "connecting";
  #source: Source | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  // Where WebSockets do not get through, Server-Sent Events do.
  #useSocket = true;
  #hasShare = false;

  constructor(
    private readonly base: string,
    private readonly id: string,
    private readonly options: Options,
  ) {
    this.#connect();
  }

  close(): void {
    if (!this.#isOver) this.#end("closed");
  }

  get #isOver(): boolean {
    return this.state !== "connecting" && this.state !== "live";
  }

  #connect(): void {
    const from = this.#hasShare ? `?fromSyncCount=${this.share.syncCount}` : "";
    if (this.#useSocket) this.#openSocket(`${this.base.replace(/^http/, "ws")}/ws/${this.id}${from}`);
    else this.#openEventSource(`${this.base}/api/share/${this.id}/events${from}`);
  }

  #openSocket(url: string): void {
    const { token } = this.options;
    const socket = new WebSocket(url, token === undefined ? [] : ["rpcshare.json", bearer(token)]);
    let wasOpen = false;
    this.#source = socket;
    socket.onopen = () => {
      wasOpen = true;
      this.#opened();
    };
    socket.onmessage = ({ data }) => this.#take(socket, String(data));
    socket.onclose = ({ reason }) => this.#lost(socket, wasOpen, reason);
  }

  #openEventSource(url: string): void {
    const source = new EventSource(url);
    let wasOpen = false;
    this.#source = source;
    source.onopen = () => {
      wasOpen = true;
      this.#opened();
    };
    source.onmessage = ({ data }) => this.#take(source, String(data));
    source.onerror = () => {
      source.close(); // it would come back by itself, but not where it was if its first request failed
      this.#lost(source, wasOpen);
    };
  }

  #opened(): void {
    if (!this.#hasShare) return;
    // What has been missed is on its way, if there is any: a share without news sends nothing at all.
    this.#failures = 0;
    this.#setState("live");
  }

  #take(source: Source, text: string): void {
    if (source !== this.#source || this.#isOver) return;
    const event = JSON.parse(text) as ShareEvent;
    if (event.type !== "deleted") {
      if (event.type !== "snapshot" && event.type !== "sync") return; // of a later version
      this.#merging.apply(event);
      this.#hasShare = true;
      this.#failures = 0;
      this.#setState("live");
    }
    this.options.onChange?.(this.share, event);
    if (event.type === "deleted") this.#end("gone");
  }

  #lost(source: Source, wasOpen: boolean, reason = ""): void {
    if (source !== this.#source || this.#isOver) return;
    this.#source = undefined;
    this.#setState("connecting");
    if (wasOpen && this.#failures === 0) this.#retry(returnDelay(reason));
    else void this.#askWhy(wasOpen);
  }

  /** Browsers do not tell scripts why a connection was refused. */
  async #askWhy(wasOpen: boolean): Promise<void> {
    const { token } = this.options;
    const init: RequestInit = { cache: "no-store" };
    if (token !== undefined) init.headers = { Authorization: `Bearer ${token}` };
    try {
      const { status } = await fetch(`${this.base}/api/share/${this.id}/metadata`, init);
      if (this.#isOver) return;
      if (status === 404 || status === 410) return this.#end("gone");
      if (status === 401 || status === 403) return this.#end("refused");
      // An EventSource cannot carry a token.
      if (status === 200 && !wasOpen && token === undefined) this.#useSocket = !this.#useSocket;
    } catch {
      // The server cannot be reached at all, which is no reason to give up.
    }
    if (!this.#isOver) this.#retry();
  }

  #retry(asked = 0): void {
    const bound = Math.min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** this.#failures++);
    const wait = Math.max(bound * (0.5 + Math.random() / 2), Math.min(asked, LONGEST_WAIT));
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  #end(state: State): void {
    this.#setState(state);
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = undefined;
  }

  #setState(state: State): void {
    if (state === this.state) return;
    this.state = state;
    this.options.onState?.(state);
  }
}

/** When a server that is being stopped wants its clients back, in milliseconds (PROTOCOL.md, T-16). */
function returnDelay(reason: string): number {
  return Number(/\(retry-after=([\d.]{1,8})\)$/.exec(reason)?.[1] ?? 0) * 1000;
}

/** The subprotocol that carries a token, since browsers cannot set headers (PROTOCOL.md, W-5). */
function bearer(token: string): string {
  return `bearer.${btoa(token).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}`;
}
