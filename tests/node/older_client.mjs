// A client made with one version of npm's capnweb, over a WebSocket: what works with it, as JSON.
//
//     node older_client.mjs PACKAGE URL TOKEN SESSION_ID
import { WebSocket } from "ws";

const [name, url, token, sessionID] = process.argv.slice(2);
globalThis.WebSocket ??= WebSocket; // which Node 20 lacks
const { newHttpBatchRpcSession, newWebSocketRpcSession } = await import(name);

const found = {};
const open = (options) => {
  const socket = new WebSocket(url.replace("http", "ws") + "/rpc", { headers: { "x-opencode-share-key": token }, ...options });
  return newWebSocketRpcSession(socket);
};
const failure = async (promise) => {
  try {
    await promise;
    return null;
  } catch (error) {
    return { text: `${error}`, reason: error.message ?? error.value?.message, code: error.code ?? null };
  }
};

const api = open();
let broken = null;
api.onRpcBroken((error) => (broken = `${error}`));
const part = (id) => ({ type: "part", data: { id, text: "x" } });

const made = await api.createShare(sessionID, [part("p0")]);
const synced = await api.syncShare(made.id, made.secret, [part("p1")]);
found.synced = synced.syncCount;

const events = [];
const seen = Array.from({ length: 51 }, () => Promise.withResolvers?.() ?? deferred());
function deferred() {
  const it = {};
  it.promise = new Promise((resolve) => (it.resolve = resolve));
  return it;
}
const subscription = await api.subscribe(made.id, (event) => {
  events.push(event);
  seen[event.syncCount - 2]?.resolve();
});
await seen[0].promise;
for (let n = 2; n < 52; n++) await api.syncShare(made.id, made.secret, [part(`p${n}`)]);
await seen[50].promise;
found.counts = [...new Set(events.map((event) => event.syncCount))].length;
found.types = [...new Set(events.map((event) => event.type))];
found.last = events.at(-1).data.at(-1).data.id;
await subscription.unsubscribe();

found.callback = await api.probeCallback((text) => text.toUpperCase());
found.probe = await api.probeValue({ when: new Date(0), bytes: new Uint8Array([1, 2]), nested: { x: 1 } });
found.errors = {
  missing: await failure(api.getShare("nowhere0")),
  secret: await failure(api.syncShare(made.id, "wrong", [])),
  argument: await failure(api.createShare("no session")),
};
found.broken = broken;

const batch = () => newHttpBatchRpcSession(new Request(`${url}/rpc/share`, { headers: { "x-opencode-share-key": token } }));
found.batch = (await batch().getShareMetadata(made.id)).syncCount;
found.errors.batch = await failure(batch().getShare("nowhere0"));

// What ends a session is told, too.
const ended = open();
found.errors.ended = await failure(ended.createShare(sessionID, [{ type: "part", data: { id: "huge", text: "x".repeat(17 * 2 ** 20) } }]));
const refused = open({ headers: { "x-opencode-share-key": "wrong" } });
found.errors.refused = await failure(refused.whoami());

await api.deleteShare(made.id, made.secret);
console.log(JSON.stringify(found));
process.exit();
