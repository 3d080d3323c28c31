// One session that is shared: gathers its changes and sends them, one batch after the other.
import type { FileDiff, SyncData } from "@rpcshare/types";
import type { Connection } from "./connection.js";
import { mayHaveRun, messageOf, remedyFor } from "./failure.js";
import type { Logger, Loose, ShareRecord } from "./host.js";
import { count, halves, Outbox, syncData, type Batch } from "./outbox.js";
import { Pause } from "./pause.js";
import { holds } from "./same.js";

export interface SharedSessionOptions {
  /** Milliseconds for which changes are gathered before they are sent. */
  readonly collectFor: number;
  /** Characters of JSON in one call, as a rule. */
  readonly batchSize: number;
  /** Characters of JSON that an item may have: the server takes no longer messages. */
  readonly itemSize: number;
}

/** What a shared session asks of its owner. */
export interface SharedSessionOwner {
  readonly connection: Connection;
  readonly logger: Logger;
  /** The secret is no longer right: creates the share again, which tells it. */
  recreate(share: SharedSession): Promise<void>;
  /** The share has been removed on the server. */
  removed(sessionID: string): Promise<void>;
  /** All has been sent. */
  caughtUp(sessionID: string): void;
}

export class SharedSession {
  #outbox = new Outbox();
  // Diffs that may have arrived already, and the syncCount before them, where it is known.
  #unsure: { diffs: readonly FileDiff[]; after: number | undefined }[] = [];
  #syncCount: number | undefined;
  #sending: Promise<void> | undefined;
  #collecting: Pause | undefined;
  #isEnded = false;
  #isFlushing = false;
  // Who waits for the outcome of an attempt to send what there is.
  #attempts: (() => void)[] = [];

  constructor(
    readonly sessionID: string,
    public record: ShareRecord,
    private readonly owner: SharedSessionOwner,
    private readonly options: SharedSessionOptions,
  ) {}

  /** Whether something has not been acknowledged yet. */
  get isBehind(): boolean {
    return !this.#isEnded && (this.#sending !== undefined || !this.#outbox.isEmpty || this.#unsure.length > 0);
  }

  /** Has changes sent, soon. */
  add(items: readonly Loose<SyncData>[]): void {
    if (this.#isEnded) return;
    this.#outbox.add(items);
    if (!this.#outbox.isEmpty) this.#start();
  }

  /** Has a whole session sent, behind which its changes since are newer. */
  addSnapshot(items: readonly Loose<SyncData>[]): void {
    const older = new Outbox();
    older.add(items);
    // The share may have been there before, with the same diffs, which it would append again.
    const diffs = older.takeDiffs();
    if (diffs.length > 0) this.#unsure.push({ diffs, after: undefined });
    this.#outbox.putBack(older.take(Infinity));
    if (this.isBehind) this.#start();
  }

  /** Takes over what has been gathered for the session before there was a share. */
  adopt(outbox: Outbox): void {
    this.#outbox.putBack(outbox.take(Infinity));
    if (!this.#outbox.isEmpty) this.#start();
  }

  /** Says that a sync made elsewhere has been acknowledged. */
  acknowledged(syncCount: number): void {
    this.#syncCount = syncCount;
  }

  /** Sends everything now. Resolves once it is acknowledged or given up, which may be never. */
  async flush(): Promise<void> {
    this.#isFlushing = true;
    while (this.#sending !== undefined) {
      this.#collecting?.end();
      this.owner.connection.wake();
      await this.#sending;
    }
    this.#isFlushing = false;
  }

  /** Sends everything now. Resolves once it is acknowledged, or cannot be sent at present. */
  async attempt(): Promise<void> {
    if (this.#sending === undefined) return;
    const attempted = new Promise<void>((resolve) => this.#attempts.push(resolve));
    this.#collecting?.end();
    this.owner.connection.wake();
    await attempted;
  }

  /** Sends nothing more. Resolves when no call is under way any longer. */
  async end(): Promise<void> {
    this.#isEnded = true;
    this.#collecting?.end();
    this.owner.connection.wake();
    await this.#sending;
  }

  #start(): void {
    this.#sending ??= this.#send().then(
      () => {
        this.#sending = undefined;
        this.#attempted();
        if (this.isBehind) this.#start();
        else this.owner.caughtUp(this.sessionID);
      },
      (error: unknown) => {
        this.#sending = undefined; // until there is something new
        this.#attempted();
        this.owner.logger.error("sharing a session failed", { sessionID: this.sessionID, error: messageOf(error) });
      },
    );
  }

  async #send(): Promise<void> {
    while (!this.#isEnded && (!this.#outbox.isEmpty || this.#unsure.length > 0)) {
      this.#collecting = new Pause(this.#isFlushing ? 0 : this.options.collectFor);
      await this.#collecting.over;
      this.#collecting = undefined;
      await this.#sendGathered();
    }
  }

  /** Sends what there is, for as long as it takes. */
  async #sendGathered(): Promise<void> {
    while (!this.#isEnded) {
      try {
        await this.#settleDiffs();
      } catch (error) {
        await this.#remedy(error);
        continue;
      }
      if (this.#outbox.isEmpty) return;
      await this.#deliver(this.#outbox.take(this.options.batchSize));
    }
  }

  async #deliver(batch: Batch): Promise<void> {
    const data = syncData(batch);
    if (count(batch) === 1 && JSON.stringify(data).length > this.options.itemSize) {
      this.#drop(data, "it is too large");
      return;
    }
    try {
      const { id, secret } = this.record;
      const result = await this.owner.connection.call((api) => Promise.resolve(api.syncShare(id, secret, data)));
      this.#syncCount = result.syncCount;
    } catch (error) {
      if (remedyFor(error) === "split") {
        if (count(batch) === 1) this.#drop(data, messageOf(error));
        else for (const half of halves(batch)) if (!this.#isEnded) await this.#deliver(half);
        return;
      }
      if (mayHaveRun(error) && batch.diffs.length > 0) {
        this.#outbox.putBack({ items: batch.items, diffs: [] });
        this.#unsure.push({ diffs: batch.diffs, after: this.#syncCount });
      } else {
        this.#outbox.putBack(batch);
      }
      await this.#remedy(error);
    }
  }

  /** Finds out which diffs have arrived whose acknowledgement was lost: the server appends what it gets. */
  async #settleDiffs(): Promise<void> {
    if (this.#unsure.length === 0) return;
    const unsure = [...this.#unsure];
    const { id } = this.record;
    const { connection } = this.owner;
    const share = await connection.call((api) => Promise.resolve(api.getShareMetadata(id)));
    const isUntouched = (after: number | undefined) => share.diffCount === 0 || share.syncCount === after;
    let missing = unsure;
    if (!unsure.every(({ after }) => isUntouched(after))) {
      // Somebody has synced since: this client, or another one that writes to the share.
      const whole = await connection.call((api) => Promise.resolve(api.getShare(id)));
      missing = unsure.filter(({ diffs, after }) => isUntouched(after) || !holds(whole.diffs as FileDiff[], diffs));
    }
    this.#unsure.splice(0, unsure.length);
    this.#outbox.putBackDiffs(missing.flatMap(({ diffs }) => diffs));
  }

  async #remedy(error: unknown): Promise<void> {
    switch (remedyFor(error)) {
      case "recreate":
        try {
          await this.owner.recreate(this);
          this.#syncCount = undefined;
        } catch (recreating) {
          const details = { sessionID: this.sessionID, error: messageOf(recreating) };
          this.owner.logger.error("the credentials of a share cannot be recovered", details);
          await (this.#collecting = new Pause(this.options.collectFor)).over;
        }
        break;
      case "removed":
        this.#isEnded = true;
        await this.owner.removed(this.sessionID);
        break;
      case "retry":
        this.#attempted();
        break;
      case "split":
        break;
    }
  }

  #attempted(): void {
    for (const resolve of this.#attempts.splice(0)) resolve();
  }

  #drop(data: SyncData[], reason: string): void {
    const details = { sessionID: this.sessionID, type: data[0]?.type, reason };
    this.owner.logger.error("part of a session cannot be shared", details);
  }
}
