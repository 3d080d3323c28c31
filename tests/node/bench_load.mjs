// Load for the benchmarks, from npm's client: node bench_load.mjs URL TOKEN
// Takes one command a line, [NAME, …ARGUMENTS] in JSON, and answers each with one line of JSON.
import { createInterface } from "node:readline";
import { newWebSocketRpcSession } from "capnweb";
import WebSocket from "ws";

globalThis.WebSocket = WebSocket; // capnweb expects it there; Node has one of its own from 22 on
const [url, token] = process.argv.slice(2);

function connect() {
  const socket = new WebSocket(url, { headers: { authorization: `Bearer ${token}` }, perMessageDeflate: false });
  socket.on("error", (error) => {
    console.error(String(error));
    process.exit(1);
  });
  return newWebSocketRpcSession(socket);
}

const part = (number, size = 430) => {
  const text = `word${number} `.repeat(Math.ceil(size / 8)).slice(0, size - 80);
  return { type: "part", data: { id: `prt_${number}`, messageID: "msg_1", type: "text", text } };
};
const probe = { when: new Date(1234567890123), bytes: new Uint8Array(16), nested: { list: [1, "two", { three: 3 }] } };
const now = () => performance.now();
const kept = [];

async function inTurns(count, atOnce, work) {
  let next = 0;
  const worker = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

const commands = {
  // Calls, `atOnce` of them under way; milliseconds in all.
  async calls(count, atOnce) {
    const api = connect();
    await api.probeValue(probe);
    const began = now();
    await inTurns(count, atOnce, () => api.probeValue(probe));
    const took = now() - began;
    api[Symbol.dispose]();
    return took;
  },

  // One call after another; the milliseconds of each.
  async roundTrips(count) {
    const api = connect();
    for (let i = 0; i < 200; i++) await api.probeValue(probe);
    const times = [];
    for (let i = 0; i < count; i++) {
      const began = now();
      await api.probeValue(probe);
      times.push(now() - began);
    }
    api[Symbol.dispose]();
    return times;
  },

  // Subscribers of one share, over so many connections; returns when all are there.
  async subscribe(sessionID, subscribers, connections) {
    const writer = connect();
    const share = await writer.createShare(sessionID, [part(0)]);
    const state = { writer, share, subscribers, heard: 0, wake: () => {} };
    const apis = Array.from({ length: connections }, connect);
    const hear = (event) => {
      if (event.type === "sync" && ++state.heard % subscribers === 0) state.wake();
    };
    state.subscriptions = await Promise.all(
      Array.from({ length: subscribers }, (_, i) => apis[i % connections].subscribe(share.id, hear)),
    );
    kept.push(state, apis);
    return null;
  },

  // Syncs of 1 kB, each heard by every subscriber before the next; the number of events.
  async publish(count) {
    const state = kept.find((each) => each.subscribers);
    const before = state.heard;
    for (let i = 0; i < count; i++) {
      const all = new Promise((resolve) => (state.wake = resolve));
      await state.writer.syncShare(state.share.id, state.share.secret, [part(i % 100, 1000)]);
      await all;
    }
    return state.heard - before;
  },

  // A share of so many parts, made in one message; milliseconds.
  async create(sessionID, count) {
    const api = connect();
    await api.whoami();
    const data = Array.from({ length: count }, (_, i) => part(i));
    const began = now();
    const share = await api.createShare(sessionID, data);
    const took = now() - began;
    kept.push({ api, share, sessionID, count });
    return took;
  },

  // Syncs of one part each into that share; the milliseconds of each.
  async syncs(sessionID, count) {
    const { api, share, count: parts } = kept.find((each) => each.sessionID === sessionID);
    const times = [];
    for (let i = 0; i < count; i++) {
      const began = now();
      await api.syncShare(share.id, share.secret, [part((i * 977) % parts)]);
      times.push(now() - began);
    }
    return times;
  },

  // Shares that are each synced all the time, one sync of one part under way in each; milliseconds in all.
  async manyShares(prefix, shares, syncsEach) {
    const api = connect();
    const made = await Promise.all(
      Array.from({ length: shares }, (_, i) => api.createShare(`${prefix}_${String(i).padStart(8, "0")}`, [part(0)])),
    );
    const began = now();
    await Promise.all(
      made.map(async (share) => {
        for (let i = 0; i < syncsEach; i++) await api.syncShare(share.id, share.secret, [part(i % 200)]);
      }),
    );
    const took = now() - began;
    api[Symbol.dispose]();
    return took;
  },

  // Connections with a session each, which then do nothing.
  async idle(count) {
    const apis = Array.from({ length: count }, connect);
    await Promise.all(apis.map((api) => api.whoami()));
    kept.push(apis);
    return null;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...rest] = JSON.parse(line);
  console.log(JSON.stringify(await commands[name](...rest)));
}
process.exit(0);
