// What is to be sent of one session: the newest of each item, and every diff.
import type { FileDiff, Identified, Item, Json, SyncData } from "@rpcshare/types";
import type { Loose } from "./host.js";

/** What goes out in one call. */
export interface Batch {
  readonly items: ReadonlyMap<string, Entry>;
  readonly diffs: readonly FileDiff[];
}

type Entry =
  | { readonly type: "session"; readonly data: Item; readonly size: number }
  | { readonly type: "message" | "part" | "model"; readonly data: Identified; readonly size: number };

/** Gathers changes until they are taken. */
export class Outbox {
  #items = new Map<string, Entry>();
  #diffs: FileDiff[] = [];

  get isEmpty(): boolean {
    return this.#items.size === 0 && this.#diffs.length === 0;
  }

  /** Adds copies of `items`. One that is no item, for lack of an id or of a form in JSON, throws. */
  add(items: readonly Loose<SyncData>[]): void {
    for (const item of items.map(plain)) {
      if (item.type === "session_diff") this.#diffs.push(...item.data);
      else for (const [key, entry] of entries(item)) this.#items.set(key, entry);
    }
  }

  /** Takes the oldest items, of about `limit` characters of JSON in all, but at least one; diffs come last. */
  take(limit: number): Batch {
    const items = new Map<string, Entry>();
    let room = limit;
    for (const [key, entry] of this.#items) {
      if (items.size > 0 && entry.size > room) return { items, diffs: [] };
      items.set(key, entry);
      room -= entry.size;
      this.#items.delete(key);
    }
    const diffs: FileDiff[] = [];
    for (const diff of this.#diffs) {
      const size = JSON.stringify(diff).length;
      if (items.size + diffs.length > 0 && size > room) break;
      diffs.push(diff);
      room -= size;
    }
    this.#diffs.splice(0, diffs.length);
    return { items, diffs };
  }

  /** Takes back what has not been delivered. What has been added since is newer, and stays. */
  putBack(batch: Batch): void {
    this.#items = new Map([...batch.items, ...this.#items]);
    this.putBackDiffs(batch.diffs);
  }

  putBackDiffs(diffs: readonly FileDiff[]): void {
    this.#diffs = [...diffs, ...this.#diffs];
  }

  takeDiffs(): FileDiff[] {
    return this.#diffs.splice(0);
  }
}

/** The batch in the form that `syncShare` takes. */
export function syncData(batch: Batch): SyncData[] {
  const data: SyncData[] = [];
  const models: Identified[] = [];
  for (const entry of batch.items.values()) {
    if (entry.type === "model") models.push(entry.data);
    else if (entry.type === "session") data.push({ type: "session", data: entry.data });
    else data.push({ type: entry.type, data: entry.data });
  }
  if (models.length > 0) data.push({ type: "model", data: models });
  if (batch.diffs.length > 0) data.push({ type: "session_diff", data: [...batch.diffs] });
  return data;
}

/** How many things a batch carries. */
export function count(batch: Batch): number {
  return batch.items.size + batch.diffs.length;
}

/** Cuts a batch of several things in two. */
export function halves(batch: Batch): [Batch, Batch] {
  const half = Math.ceil(count(batch) / 2);
  const entries = [...batch.items];
  const cut = Math.max(half - entries.length, 0);
  return [
    { items: new Map(entries.slice(0, half)), diffs: batch.diffs.slice(0, cut) },
    { items: new Map(entries.slice(half)), diffs: batch.diffs.slice(cut) },
  ];
}

/** A copy of an item, as its JSON says it. */
export function plain(item: Loose<SyncData>): SyncData {
  return JSON.parse(JSON.stringify(item)) as SyncData;
}

function* entries(item: Exclude<SyncData, { type: "session_diff" }>): Generator<[string, Entry]> {
  switch (item.type) {
    case "session":
      yield ["session", { type: "session", data: item.data, size: size(item.data) }];
      break;
    case "model":
      for (const model of item.data) {
        const key = JSON.stringify(["model", model["providerID"] ?? null, identity(model, "model")]);
        yield [key, { type: "model", data: model, size: size(model) }];
      }
      break;
    default: {
      const key = JSON.stringify([item.type, identity(item.data, item.type)]);
      yield [key, { type: item.type, data: item.data, size: size(item.data) }];
    }
  }
}

function identity(item: { id?: Json }, type: string): string {
  if (typeof item.id !== "string" || item.id === "") throw new TypeError(`a ${type} has no id`);
  return item.id;
}

function size(value: Json): number {
  return JSON.stringify(value).length;
}
