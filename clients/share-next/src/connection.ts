// One connection for all shares: opened when it is first needed, opened again when it is lost.
import type { ShareRpc } from "@rpcshare/types";
import { newHttpBatchRpcSession, RpcSession, type RpcStub } from "capnweb";
import { Backoff } from "./backoff.js";
import { codeOf, messageOf, Unreachable } from "./failure.js";
import type { Logger, ServerConfig } from "./host.js";
import { Pause } from "./pause.js";
import { openSocket, type OpenSocket } from "./socket.js";
import { SocketTransport } from "./transport.js";

/** What becomes of what a call carries if it fails: it is sent again by itself, or whoever made the call is told. */
export type AfterFailure = "sent later" | "told";

/** Calls of one round trip: all of them begun before any is awaited, so that a batch over HTTP carries them. */
export type Calls<T> = (api: RpcStub<ShareRpc>) => Promise<T>;

export interface ConnectionOptions {
  /** Milliseconds for a handshake. */
  readonly connectTimeout: number;
  /** Milliseconds for an answer; a server that takes longer counts as unreachable. */
  readonly callTimeout: number;
  /** Milliseconds after which WebSockets are tried again where they were found to be blocked. */
  readonly blockedFor: number;
}

interface Session {
  readonly api: RpcStub<ShareRpc>;
  readonly socket: OpenSocket;
  readonly lost: Promise<never>;
}

export class Connection {
  #session: Promise<Session> | undefined;
  #blockedUntil = 0;
  #backoff = new Backoff();
  #pause: Pause | undefined;
  #hasWarned = false;
  #isClosed = false;

  constructor(
    private readonly config: () => ServerConfig | Promise<ServerConfig>,
    private readonly logger: Logger,
    private readonly options: ConnectionOptions,
  ) {}

  /**
   * Makes some calls now, and returns what they do. Rejects with the server's error, which has a `code`, or with
   * Unreachable. After a failure that is not the caller's fault the next call waits, longer each time.
   */
  async call<T>(calls: Calls<T>, afterFailure: AfterFailure = "sent later"): Promise<T> {
    while (this.#pause !== undefined) await this.#pause.over;
    try {
      const result = await this.#attempt(calls);
      this.#succeeded();
      return result;
    } catch (error) {
      if (isTrouble(error)) this.#failed(error, afterFailure);
      else this.#succeeded();
      throw error;
    }
  }

  /** Has calls that wait after a failure go ahead, and the next ones wait less. */
  wake(): void {
    this.#backoff.reset();
    this.#pause?.end();
  }

  /** Closes the WebSocket. Calls under way fail. */
  close(): void {
    this.#isClosed = true;
    this.wake();
    this.#session?.then(
      ({ socket }) => socket.webSocket.close(1000),
      () => undefined, // there was none
    );
  }

  async #attempt<T>(calls: Calls<T>): Promise<T> {
    if (this.#isClosed) throw new Unreachable("the client is closed", false);
    if (Date.now() < this.#blockedUntil) return await this.#overHttp(calls);
    let session: Session;
    try {
      session = await (this.#session ??= this.#open());
    } catch (error) {
      return await this.#withoutWebSocket(calls, error);
    }
    const timeout = new Pause(this.options.callTimeout);
    const late = timeout.over.then(() => {
      throw new Unreachable("the server does not answer", true);
    });
    try {
      return await Promise.race([calls(session.api), session.lost, late]);
    } catch (error) {
      if (codeOf(error) !== undefined) throw error;
      // Whatever it was, nothing more is to come from that session.
      session.socket.destroy();
      throw error instanceof Unreachable ? error : new Unreachable(messageOf(error), true);
    } finally {
      late.catch(() => undefined); // of which nobody hears any more
      timeout.end();
    }
  }

  #open(): Promise<Session> {
    const forget = () => {
      if (this.#session === opening) this.#session = undefined;
    };
    const opening = (async () => {
      const socket = await openSocket(await this.config(), this.options.connectTimeout);
      const api = new RpcSession<ShareRpc>(new SocketTransport(socket.webSocket)).getRemoteMain();
      const lost = new Promise<never>((_, reject) => {
        api.onRpcBroken((error) => {
          forget();
          reject(new Unreachable(messageOf(error), true));
        });
      });
      lost.catch(() => undefined); // a session that nobody uses may end
      return { api, socket, lost };
    })();
    opening.catch(forget);
    return opening;
  }

  /** Where a proxy does not let WebSockets through, HTTP may still do. */
  async #withoutWebSocket<T>(calls: Calls<T>, cause: unknown): Promise<T> {
    const blocked = () => {
      if (Date.now() < this.#blockedUntil) return;
      this.#blockedUntil = Date.now() + this.options.blockedFor;
      this.logger.info("WebSockets do not get through to the share server: using HTTP", { error: messageOf(cause) });
    };
    try {
      const result = await this.#overHttp(calls);
      blocked();
      return result;
    } catch (error) {
      const code = codeOf(error);
      if (code !== undefined && code !== "UNAUTHORIZED" && code !== "FORBIDDEN") blocked();
      throw error;
    }
  }

  async #overHttp<T>(calls: Calls<T>): Promise<T> {
    const { url, token } = await this.config();
    const init: RequestInit = { signal: AbortSignal.timeout(this.options.callTimeout) };
    if (token !== undefined) init.headers = { Authorization: `Bearer ${token}` };
    const request = new Request(`${url.replace(/\/+$/, "")}/rpc`, init);
    try {
      return await calls(newHttpBatchRpcSession<ShareRpc>(request));
    } catch (error) {
      if (codeOf(error) !== undefined && error instanceof Error && !isSystemError(error)) throw error;
      const refused = /^RPC request failed: (401|403)/.exec(messageOf(error));
      if (refused !== null) throw refusal(refused[1] === "401" ? "UNAUTHORIZED" : "FORBIDDEN");
      throw new Unreachable(`the share server cannot be reached: ${messageOf(error)}`, true);
    }
  }

  #succeeded(): void {
    this.#backoff.reset();
    if (!this.#hasWarned) return;
    this.#hasWarned = false;
    this.logger.info("the share server answers again");
  }

  #failed(error: unknown, afterFailure: AfterFailure): void {
    if (this.#isClosed) return;
    const details = { error: messageOf(error), code: codeOf(error) };
    if (this.#hasWarned) this.logger.info("the share server still cannot be used", details);
    else {
      const kept = afterFailure === "sent later" ? "; what is shared is kept, and sent later" : "";
      this.logger.warn(`the share server cannot be used at present${kept}`, details);
    }
    this.#hasWarned = true;
    if (this.#pause !== undefined) return; // another call has failed likewise
    const pause = (this.#pause = new Pause(this.#backoff.next()));
    void pause.over.then(() => (this.#pause = undefined));
  }
}

/** Whether a failure is of the server or the way to it, and not of what it was asked. */
function isTrouble(error: unknown): boolean {
  const code = codeOf(error);
  return code === undefined || TROUBLE.has(code);
}

const TROUBLE = new Set(["UNAUTHORIZED", "FORBIDDEN", "RATE_LIMITED", "STORAGE_UNAVAILABLE", "INTERNAL"]);

/** Node's and Bun's own errors have codes too, such as ECONNREFUSED. */
function isSystemError(error: Error): boolean {
  const code = codeOf(error) ?? "";
  return /^(E[A-Z]+|ERR_\w+|UND_ERR_\w+|Connection\w+|FailedToOpenSocket)$/.test(code);
}

function refusal(code: "UNAUTHORIZED" | "FORBIDDEN"): Error & { code: string } {
  const message = code === "UNAUTHORIZED" ? "Unauthorized: the server refuses the token" : "Forbidden";
  return Object.assign(new Error(message), { code });
}
