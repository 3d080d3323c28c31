// The sharing of a program's sessions.
import type { AccessOptions, AgentSession, ShareCredentials, SyncData } from "@rpcshare/types";
import { Connection } from "./connection.js";
import { codeOf, mayHaveRun, messageOf, remedyFor, Unreachable } from "./failure.js";
import type { Host, Loose, ShareRecord } from "./host.js";
import { Outbox, plain, syncData } from "./outbox.js";
import { within } from "./pause.js";
import { lacking } from "./same.js";
import { SharedSession, type SharedSessionOwner } from "./shared-session.js";

export interface Options {
  /** Milliseconds for which changes are gathered before they are sent: 1,000. */
  readonly collectFor?: number;
  /** Milliseconds for an answer; a server that takes longer counts as unreachable: 15,000. */
  readonly callTimeout?: number;
  /** Milliseconds for a handshake: 10,000. */
  readonly connectTimeout?: number;
  /** Milliseconds after which WebSockets are tried again where they were found to be blocked: 60,000. */
  readonly blockedFor?: number;
  /** Characters of JSON in one call, as a rule: 4 Mi. */
  readonly batchSize?: number;
  /** Characters of JSON that one item may have; longer ones are not shared: 15 Mi. */
  readonly itemSize?: number;
}

export interface CreateOptions {
  readonly keepTrying?: boolean;
  readonly access?: AccessOptions | undefined;
}

/** Shares sessions of a host: creates shares, keeps them up to date, removes them. */
export class ShareNext {
  readonly #connection: Connection;
  readonly #options: Required<Options>;
  // null: the session is not shared. A promise: the store is being asked, or the share is being made.
  readonly #shares = new Map<string, SharedSession | null | Promise<SharedSession | null>>();
  // What happens to a session while it is not known yet whether it is shared.
  readonly #early = new Map<string, Outbox>();
  readonly #creating = new Map<string, Promise<ShareCredentials>>();
  readonly #owner: SharedSessionOwner;
  readonly #unsubscribe: () => void;

  constructor(
    private readonly host: Host,
    options: Options = {},
  ) {
    this.#options = { ...DEFAULTS, ...options };
    this.#connection = new Connection(() => host.config(), host.logger, this.#options);
    this.#owner = {
      connection: this.#connection,
      logger: host.logger,
      recreate: (share) => this.#recreate(share),
      removed: (sessionID) => this.#removedElsewhere(sessionID),
      caughtUp: (sessionID) => void this.#caughtUp(sessionID),
    };
    this.#unsubscribe = host.events.subscribe({
      changed: (sessionID, items) => this.#changed(sessionID, items),
      deleted: (sessionID) => void this.remove(sessionID).catch((error) => this.#tell(sessionID, error)),
    });
  }

  /**
   * Shares a session, with all that is in it, and keeps it up to date from then on. For a session that is shared it
   * sends what the share lacks, puts its record back if that is lost, and returns what is there.
   *
   * Fails if the server cannot be reached, unless the session is shared: then what could not be sent is, later.
   *
   * @param options `keepTrying`: wait for a server that cannot be reached, instead of failing. `access`: who may read
   *     the share, and until when.
   */
  create(sessionID: string, options: CreateOptions = {}): Promise<ShareCredentials> {
    const before = this.#creating.get(sessionID);
    if (before !== undefined && options.access === undefined) return before; // both want the same
    const creating = this.#createOrComplete(sessionID, options, before).finally(() => {
      if (this.#creating.get(sessionID) === creating) this.#creating.delete(sessionID);
    });
    this.#creating.set(sessionID, creating);
    return creating;
  }

  async #createOrComplete(
    sessionID: string,
    options: CreateOptions,
    before: Promise<unknown> | undefined,
  ): Promise<ShareCredentials> {
    await before?.catch(() => undefined);
    const known = await this.#find(sessionID);
    if (known !== null && (await this.#complete(known, options))) return credentials(known);
    const creating = this.#create(sessionID, options);
    this.#shares.set(sessionID, creating);
    try {
      return credentials(await creating);
    } catch (error) {
      if (this.#shares.get(sessionID) === creating) this.#shares.set(sessionID, null);
      this.#early.delete(sessionID);
      throw error;
    }
  }

  /** Sends what a share lacks, and keeps its record; returns false if it has been removed on the server. */
  async #complete(share: SharedSession, { access }: CreateOptions): Promise<boolean> {
    const { sessionID } = share;
    const { id, secret, url } = share.record;
    let items: Loose<SyncData>[] = await this.#snapshot(sessionID);
    try {
      const held = await this.#connection.call((api) => Promise.resolve(api.getShare(id)));
      items = lacking(held as AgentSession, items.map(plain));
    } catch (error) {
      if (remedyFor(error) === "removed") {
        await share.end();
        this.#shares.set(sessionID, null);
        return false;
      }
      // Whatever it is: all of it is sent, or waits to be.
    }
    share.addSnapshot(items);
    await share.attempt();
    if (this.#shares.get(sessionID) !== share) return false;
    const kept = await this.host.store.get(sessionID);
    if (kept?.id !== id || kept.secret !== secret || kept.url !== url) await this.host.store.put(sessionID, share.record);
    if (access !== undefined) {
      await this.#connection.call((api) => Promise.resolve(api.updateShare(id, secret, access)), "told");
    }
    return true;
  }

  /** The credentials of a session's share, or undefined if it is not shared. */
  async get(sessionID: string): Promise<ShareCredentials | undefined> {
    const share = await this.#find(sessionID);
    return share === null ? undefined : credentials(share);
  }

  /** Takes a session's share down. Returns whether there was one. */
  async remove(sessionID: string): Promise<boolean> {
    const share = await this.#find(sessionID);
    if (share === null) return false;
    await share.end();
    try {
      const { id, secret } = share.record;
      await this.#connection.call((api) => Promise.resolve(api.deleteShare(id, secret)), "told");
    } catch (error) {
      if (remedyFor(error) !== "removed") {
        this.#shares.delete(sessionID); // it goes on with the next change, from a whole session
        await this.host.store.put(sessionID, { ...share.record, behind: true });
        throw error;
      }
    }
    this.#shares.set(sessionID, null);
    await this.host.store.remove(sessionID);
    return true;
  }

  /** Sends a whole session again. */
  async resend(sessionID: string): Promise<void> {
    const share = await this.#find(sessionID);
    if (share !== null) share.addSnapshot(await this.#snapshot(sessionID));
  }

  /** Whether any session is shared, or about to be. */
  get isInUse(): boolean {
    return [...this.#shares.values()].some((share) => share !== null);
  }

  /** Which sessions have changes that the server has not acknowledged. */
  get behind(): string[] {
    return this.recordsBehind().map(([sessionID]) => sessionID);
  }

  /** The same, with what the store should have of them if the process ended now. */
  recordsBehind(): [sessionID: string, record: ShareRecord][] {
    const behind = this.#open().filter((share) => share.isBehind);
    return behind.map(({ sessionID, record }) => [sessionID, { ...record, behind: true }]);
  }

  /**
   * Sends all that is waiting, without gathering any longer: before the process exits, say. What cannot be sent is
   * marked in the store, so that a later process sends the session again.
   *
   * @param timeout In milliseconds.
   * @returns Whether the server has acknowledged everything.
   */
  async flush(timeout = 10_000): Promise<boolean> {
    const end = Date.now() + timeout;
    this.#connection.wake();
    const unknown = [...this.#shares.values()].filter((share) => share instanceof Promise);
    await within(Promise.allSettled(unknown), timeout);
    await within(Promise.all(this.#open().map((share) => share.flush())), end - Date.now());
    const { behind } = this;
    for (const sessionID of behind) await this.#markBehind(sessionID);
    for (const [sessionID, share] of this.#shares) if (share instanceof Promise) behind.push(sessionID);
    return behind.length === 0;
  }

  /**
   * Flushes, and disconnects. Whether all has arrived, `flush` tells: this is what a program calls that only wants to
   * be rid of it.
   *
   * @param timeout In milliseconds.
   */
  close(timeout?: number): Promise<void>;
  async close(timeout = 10_000): Promise<boolean | void> {
    const sent = await this.flush(timeout);
    if (!sent) {
      this.host.logger.warn("not all of what is shared could be sent in time; to share the session again sends the rest", {
        sessions: this.behind.join(", "),
      });
    }
    this.#unsubscribe();
    this.#connection.close();
    await Promise.all(this.#open().map((share) => share.end()));
    return sent;
  }

  #changed(sessionID: string, items: readonly Loose<SyncData>[]): void {
    try {
      const share = this.#shares.get(sessionID);
      if (share === null) return;
      if (share instanceof SharedSession) {
        share.add(items);
        return;
      }
      let early = this.#early.get(sessionID);
      if (early === undefined) this.#early.set(sessionID, (early = new Outbox()));
      early.add(items);
      if (share === undefined) void this.#find(sessionID).catch((error) => this.#tell(sessionID, error));
    } catch (error) {
      this.#tell(sessionID, error);
    }
  }

  /** The share of a session, from memory or from the store. */
  #find(sessionID: string): Promise<SharedSession | null> {
    const known = this.#shares.get(sessionID);
    if (known !== undefined) return Promise.resolve(known);
    const asking = this.#load(sessionID);
    this.#shares.set(sessionID, asking);
    asking.catch(() => {
      if (this.#shares.get(sessionID) === asking) this.#shares.delete(sessionID);
    });
    return asking;
  }

  async #load(sessionID: string): Promise<SharedSession | null> {
    const record = await this.host.store.get(sessionID);
    if (record === undefined) {
      this.#shares.set(sessionID, null);
      this.#early.delete(sessionID);
      return null;
    }
    const items = record.behind === true ? await this.#snapshot(sessionID) : undefined;
    const share = this.#begin(sessionID, record);
    if (items !== undefined) share.addSnapshot(items);
    return share;
  }

  async #create(sessionID: string, { keepTrying = false, access }: CreateOptions): Promise<SharedSession> {
    this.#early.set(sessionID, new Outbox()); // newer than the snapshot
    for (let attempt = 1; ; attempt++) {
      const items = await this.#snapshot(sessionID);
      const snapshot = new Outbox();
      snapshot.add(items);
      const diffs = snapshot.takeDiffs();
      const first = syncData(snapshot.take(this.#options.batchSize));
      try {
        const [made, synced] = await this.#connection.call((api) => {
          const share = access === undefined ? api.createShare(sessionID) : api.createShare(sessionID, null, access);
          return Promise.all([share, api.syncShare(share.id, share.secret, first)]);
        }, keepTrying ? "sent later" : "told");
        const share = this.#begin(sessionID, await this.#keep(sessionID, made));
        share.acknowledged(synced.syncCount);
        share.adopt(snapshot);
        // They follow at once: whether the share had them already, only the answer could tell.
        if (diffs.length > 0) share.addSnapshot([{ type: "session_diff", data: diffs }]);
        return share;
      } catch (error) {
        const isBadData = codeOf(error) === "INVALID_ARGUMENT" || codeOf(error) === "PAYLOAD_TOO_LARGE";
        // A connection that had been idle may have been dead for long: then a second attempt does.
        const again = keepTrying ? !isBadData : attempt === 1 && error instanceof Unreachable && mayHaveRun(error);
        if (!again) throw error;
      }
    }
  }

  #open(): SharedSession[] {
    return [...this.#shares.values()].filter((share) => share instanceof SharedSession);
  }

  async #recreate(share: SharedSession): Promise<void> {
    const { sessionID, record } = share;
    const made = await this.#connection.call((api) => Promise.resolve(api.createShare(sessionID)));
    const items = made.id === record.id ? undefined : await this.#snapshot(sessionID);
    share.record = await this.#keep(sessionID, made);
    if (items !== undefined) share.addSnapshot(items);
  }

  #begin(sessionID: string, record: ShareRecord): SharedSession {
    const share = new SharedSession(sessionID, record, this.#owner, this.#options);
    this.#shares.set(sessionID, share);
    const early = this.#early.get(sessionID);
    this.#early.delete(sessionID);
    if (early !== undefined) share.adopt(early);
    return share;
  }

  async #keep(sessionID: string, { id, secret, url }: ShareCredentials): Promise<ShareRecord> {
    const record = { id, secret, url };
    await this.host.store.put(sessionID, record);
    return record;
  }

  async #markBehind(sessionID: string): Promise<void> {
    const share = this.#shares.get(sessionID);
    if (!(share instanceof SharedSession)) return;
    try {
      share.record = { ...share.record, behind: true };
      await this.host.store.put(sessionID, share.record);
    } catch (error) {
      this.#tell(sessionID, error);
    }
  }

  /** What the store says of a session is no longer so. */
  async #caughtUp(sessionID: string): Promise<void> {
    const share = this.#shares.get(sessionID);
    if (!(share instanceof SharedSession)) return;
    if (share.record.behind !== true) return;
    try {
      share.record = await this.#keep(sessionID, share.record);
    } catch (error) {
      this.#tell(sessionID, error);
    }
  }

  async #removedElsewhere(sessionID: string): Promise<void> {
    this.#shares.set(sessionID, null);
    this.host.logger.warn("the share of a session has been removed on the server; the session is no longer shared", {
      sessionID,
    });
    try {
      await this.host.store.remove(sessionID);
    } catch (error) {
      this.#tell(sessionID, error);
    }
  }

  async #snapshot(sessionID: string): Promise<Loose<SyncData>[]> {
    const { sessions } = this.host;
    const [session, messages, diff, models] = await Promise.all([
      sessions.session(sessionID),
      sessions.messages(sessionID),
      sessions.diff(sessionID),
      sessions.models(sessionID),
    ]);
    return [
      { type: "session", data: session },
      ...messages.map(({ info }) => ({ type: "message" as const, data: info })),
      ...messages.flatMap(({ parts }) => parts.map((part) => ({ type: "part" as const, data: part }))),
      { type: "model", data: models },
      { type: "session_diff", data: diff },
    ];
  }

  #tell(sessionID: string, error: unknown): void {
    this.host.logger.error("sharing a session failed", { sessionID, error: messageOf(error), code: codeOf(error) });
  }
}

const DEFAULTS: Required<Options> = {
  collectFor: 1_000,
  callTimeout: 15_000,
  connectTimeout: 10_000,
  blockedFor: 60_000,
  batchSize: 4 * 2 ** 20,
  itemSize: 15 * 2 ** 20,
};

function credentials(share: SharedSession | null): ShareCredentials {
  if (share === null) throw new Error("the session is not shared");
  const { id, url, secret } = share.record;
  return { id, url, secret };
}
