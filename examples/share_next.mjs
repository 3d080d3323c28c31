// Share the sessions of a program of one's own, with @rpcshare/share-next.
//
// Run it against `rpcshare serve`, with the token in `.rpcshare/admin-token`:
//
//     npm install @rpcshare/share-next
//     RPCSHARE_TOKEN=… node examples/share_next.mjs ses_4f1d2c9b8a

import { EventEmitter } from "node:events";
import { ShareNext } from "@rpcshare/share-next";

const sessionID = process.argv[2];
const url = process.env.RPCSHARE_URL ?? "http://127.0.0.1:8787";

// What a program has anyway: sessions, a bus of events, and somewhere to keep things.
const bus = new EventEmitter();
const message = { id: "msg_1", role: "user" };
const part = { id: "prt_1", messageID: "msg_1", type: "text", text: "Hel" };
const records = new Map();

const share = new ShareNext({
  config: () => ({ url, token: process.env.RPCSHARE_TOKEN }),
  logger: { info() {}, warn: console.warn, error: console.error },
  sessions: {
    session: async (id) => ({ id, title: "Shared by a program" }),
    messages: async () => [{ info: message, parts: [part] }],
    diff: async () => [],
    models: async () => [],
  },
  store: {
    get: async (id) => records.get(id),
    put: async (id, record) => void records.set(id, record),
    remove: async (id) => void records.delete(id),
  },
  events: {
    subscribe({ changed }) {
      bus.on("changed", changed);
      return () => bus.off("changed", changed);
    },
  },
});

console.log((await share.create(sessionID)).url);
part.text = "Hello";
bus.emit("changed", sessionID, [{ type: "part", data: part }]); // sent within a second, by itself
console.log((await share.flush()) ? "all of it has arrived" : "some of it has not arrived");
await share.close();
