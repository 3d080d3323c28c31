// What a share holds, and what events make of it (PROTOCOL.md, "Merging").
import type { FileDiff, Identified, Item, ShareEvent, SyncData } from "@rpcshare/types";

/** A share as a plain object. It is changed in place. */
export interface WatchedShare {
  session: Item;
  messages: Identified[];
  parts: Identified[];
  diffs: FileDiff[];
  models: Identified[];
  /** How many syncs it has seen. */
  syncCount: number;
}

export class Merging {
  readonly share: WatchedShare = { session: {}, messages: [], parts: [], diffs: [], models: [], syncCount: 0 };
  // Where each message, part and model is in its list.
  #places = new Map<string, number>();

  apply(event: Exclude<ShareEvent, { type: "deleted" }>): void {
    const { share } = this;
    if (event.type === "snapshot") {
      Object.assign(share, { session: {}, messages: [], parts: [], diffs: [], models: [] });
      this.#places.clear();
    }
    for (const item of event.data) this.#merge(item);
    share.syncCount = event.syncCount;
  }

  #merge({ type, data }: SyncData): void {
    const { share } = this;
    if (type === "session") share.session = data;
    else if (type === "message") this.#put(share.messages, "m" + data.id, data);
    else if (type === "part") this.#put(share.parts, "p" + data.id, data);
    else if (type === "session_diff") share.diffs.push(...data);
    else if (type === "model") {
      for (const model of data) this.#put(share.models, JSON.stringify([model["providerID"], model.id]), model);
    }
  }

  #put(list: Identified[], key: string, item: Identified): void {
    const place = this.#places.get(key);
    if (place === undefined) this.#places.set(key, list.push(item) - 1);
    else list[place] = item;
  }
}
