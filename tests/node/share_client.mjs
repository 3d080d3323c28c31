// npm's capnweb as a client of a share server: node share_client.mjs URL TOKEN SCENARIO SESSION_ID
// Prints one JSON object: what the scenario returned, and every frame in the order in which it passed.
import { newWebSocketRpcSession } from "capnweb";
import WebSocket from "ws";

globalThis.WebSocket = WebSocket; // capnweb expects it there; Node has one of its own from 22 on
const [url, token, scenario, sessionID] = process.argv.slice(2);
const part = (id, text) => ({ type: "part", data: { id, messageID: "msg_1", type: "text", text } });
const message = { type: "message", data: { id: "msg_1", role: "user" } };

const failure = async (promise) => {
  try {
    await promise;
    return null;
  } catch (error) {
    return { name: error.name, message: error.message, code: error.code };
  }
};

const scenarios = {
  async createWithData(api) {
    return await api.createShare(sessionID, [message, part("prt_1", "hello")]);
  },

  async pipelined(api) {
    const share = api.createShare(sessionID);
    const synced = api.syncShare(share.id, share.secret, [message]);
    return { synced: await synced, share: await share };
  },

  async everyMethod(api) {
    const share = await api.createShare(sessionID);
    const synced = await api.syncShare(share.id, share.secret, [message, part("prt_1", "hello")]);
    const session = await api.getShare(share.id);
    const metadata = await api.getShareMetadata(share.id);
    const listed = await api.listShares({ query: sessionID });
    const who = await api.whoami();
    const again = await api.createShare(sessionID);
    const deleted = await api.deleteShare(share.id, share.secret);
    const gone = await failure(api.getShare(share.id));
    return { share, synced, session, metadata, listed, who, again, deleted, gone };
  },

  async probes(api) {
    const heard = [];
    const value = await api.probeValue({
      when: new Date(1234567890123),
      bytes: new Uint8Array([1, 2, 255]),
      nested: { list: [[], [1, [2]]], "": null },
    });
    const called = await api.probeCallback((text) => {
      heard.push(text);
      return `heard ${text}`;
    });
    return { value, called, heard };
  },

  async errors(api) {
    const share = await api.createShare(sessionID);
    return {
      notFound: await failure(api.getShare("nowhere0")),
      wrongSecret: await failure(api.syncShare(share.id, "wrong", [])),
      badData: await failure(api.syncShare(share.id, share.secret, "text")),
      badID: await failure(api.createShare("not a session id")),
      badType: await failure(api.createShare(42)),
      noMethod: await failure(api.dropEverything()),
      stillThere: await api.getShareMetadata(share.id),
    };
  },

  async subscribe(api) {
    const share = await api.createShare(sessionID, [message]);
    const events = [];
    let ended;
    const end = new Promise((resolve) => (ended = resolve));
    const subscription = await api.subscribe(share.id, (event) => {
      events.push(event);
      if (event.type === "deleted") ended();
    });
    for (let i = 0; i < 5; i++) await api.syncShare(share.id, share.secret, [part("prt_1", `${i}`)]);
    await api.deleteShare(share.id, share.secret);
    await end;
    subscription[Symbol.dispose]();
    return events;
  },

  async unsubscribe(api) {
    const share = await api.createShare(sessionID);
    const seen = [];
    const subscription = await api.subscribe(share.id, (event) => void seen.push(event.syncCount), 0);
    await api.syncShare(share.id, share.secret, [message]);
    while (seen.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await subscription.unsubscribe();
    await api.syncShare(share.id, share.secret, [message]);
    // Events to this connection are sent before the answer to a call that comes after them.
    await api.whoami();
    return seen;
  },

  async watch(api) {
    const share = await api.createShare(sessionID, [message]);
    const events = [];
    const reader = (await api.watch(share.id)).getReader();
    events.push((await reader.read()).value);
    for (let i = 0; i < 5; i++) await api.syncShare(share.id, share.secret, [part("prt_1", `${i}`)]);
    await api.deleteShare(share.id, share.secret);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return events;
      events.push(value);
    }
  },

  async openShare(api) {
    const created = await api.createShare(sessionID);
    const share = api.openShare(created.id, created.secret);
    const synced = await share.sync([message]);
    return {
      synced,
      messages: (await share.snapshot()).messages,
      refused: await failure(api.openShare(created.id, "wrong")),
      deleted: await share.delete(),
      gone: await failure(share.sync([message])),
    };
  },

  async authenticate(api) {
    const other = api.authenticate(token);
    return { who: await other.whoami(), refused: await failure(api.authenticate("wrong")) };
  },

  async undefinedAndDates(api) {
    const share = await api.createShare(sessionID, [
      {
        type: "message",
        data: { id: "msg_1", gone: undefined, at: new Date(0), list: [undefined, NaN, 12n] },
      },
    ]);
    return (await api.getShare(share.id)).messages;
  },
};

const frames = [];
const socket = new WebSocket(url.replace(/^http/, "ws") + "/rpc", {
  headers: { Authorization: `Bearer ${token}` },
});
const send = socket.send.bind(socket);
socket.send = (data) => {
  frames.push({ sent: JSON.parse(data) });
  send(data);
};
socket.on("message", (data) => frames.push({ received: JSON.parse(data.toString()) }));

const api = newWebSocketRpcSession(socket);
const result = await scenarios[scenario](api);
console.log(JSON.stringify({ result, frames }));
socket.close();
