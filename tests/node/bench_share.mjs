// The peer of the benchmarks: a share server as one writes it with npm's capnweb, which keeps each session whole:
// every sync reads it, merges, and writes all of it again, and nothing is synced to disk. bench_node.mjs, bench_bun.mjs
// and bench_workerd.mjs serve it, each with what its runtime has for sockets and files.
import { createHash } from "node:crypto";
import { RpcTarget } from "capnweb";

export const TOKEN = "bench-token";
const digest = (text) => createHash("sha256").update(text).digest("hex");
const EXPECTED = digest(`Bearer ${TOKEN}`);

/** Whether the value of an Authorization header is right. */
export const isAuthorized = (header) => digest(header ?? "") === EXPECTED;

let storage;

/** Keep sessions by `storage`: `read(id)` and `write(id, text)`, both asynchronous. */
export function keepIn(chosen) {
  storage = chosen;
}

const subscribers = new Map(); // share id → set of callbacks
const turns = new Map(); // share id → the end of the last write: writes of one share take turns

function upsert(list, item) {
  const at = list.findIndex((old) => old.id === item.id);
  if (at < 0) list.push(item);
  else list[at] = item;
}

function upsertAll(list, items) {
  // Many at once by an index, or a large create would be quadratic.
  if (items.length < 20) return items.forEach((item) => upsert(list, item));
  const places = new Map(list.map((item, at) => [item.id, at]));
  for (const item of items) {
    const at = places.get(item.id);
    if (at === undefined) places.set(item.id, list.push(item) - 1);
    else list[at] = item;
  }
}

function merge(session, data) {
  const of = (type) => data.filter((item) => item.type === type).map((item) => item.data);
  for (const item of of("session")) session.session = item;
  upsertAll(session.messages, of("message"));
  upsertAll(session.parts, of("part"));
  for (const items of of("model")) upsertAll(session.models, items);
  for (const items of of("session_diff")) session.diffs.push(...items);
  session.metadata.syncCount += 1;
  session.metadata.lastUpdated = Date.now();
}

async function sync(id, data) {
  const before = turns.get(id) ?? Promise.resolve();
  const turn = before.then(async () => {
    const session = JSON.parse(await storage.read(id));
    merge(session, data);
    await storage.write(id, JSON.stringify(session));
    const event = { type: "sync", shareID: id, syncCount: session.metadata.syncCount, data };
    for (const callback of subscribers.get(id) ?? []) {
      callback(event).then(() => {}, () => subscribers.get(id)?.delete(callback));
    }
    return session.metadata.syncCount;
  });
  turns.set(id, turn.catch(() => {}));
  return turn;
}

class Subscription extends RpcTarget {
  #end;

  constructor(end) {
    super();
    this.#end = end;
  }

  unsubscribe() {
    this.#end();
  }
}

export class ShareRpc extends RpcTarget {
  async createShare(sessionID, initialData) {
    const id = sessionID.slice(-8);
    const secret = digest(sessionID).slice(0, 36);
    const now = Date.now();
    const metadata = { createdAt: now, lastUpdated: now, syncCount: 0, sessionID };
    const session = { session: { id: sessionID }, messages: [], parts: [], diffs: [], models: [], metadata };
    if (initialData) merge(session, initialData);
    await storage.write(id, JSON.stringify(session));
    return { id, url: `http://localhost/share/${id}`, secret };
  }

  async syncShare(id, secret, data) {
    return { success: true, syncCount: await sync(id, data) };
  }

  async subscribe(id, onEvent) {
    const callback = onEvent.dup();
    if (!subscribers.has(id)) subscribers.set(id, new Set());
    subscribers.get(id).add(callback);
    return new Subscription(() => subscribers.get(id).delete(callback));
  }

  probeValue({ when, bytes, nested }) {
    return { when: when.toISOString(), bytes: [...bytes], size: bytes.length, nested };
  }

  whoami() {
    return { subject: "admin", scopes: ["admin"] };
  }
}
