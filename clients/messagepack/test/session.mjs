// A session in MessagePack with a share server: node session.mjs URL TOKEN SCENARIO
// Prints one JSON object: what the scenario returned, and how many frames of each kind passed.
import WebSocket from "ws";
import { MessagePackTransport, newMessagePackRpcSession, subprotocols } from "../index.js";
import { RpcSession } from "capnweb";

const [url, token, scenario] = process.argv.slice(2);
const address = `${url.replace(/^http/, "ws")}/rpc`;
const frames = { sent: 0, received: 0, text: 0 };

const open = (offered, options) => {
  const socket = new WebSocket(address, offered, options);
  const send = socket.send.bind(socket);
  socket.send = (data) => {
    frames.sent++;
    if (typeof data === "string") frames.text++;
    send(data);
  };
  socket.on("message", (data, isBinary) => {
    frames.received++;
    if (!isBinary) frames.text++;
  });
  return socket;
};
const withHeaders = () => open(subprotocols(), { headers: { Authorization: `Bearer ${token}` } });

const outcome = async (promise) => {
  try {
    return { value: await promise };
  } catch (error) {
    return { error: error.message, code: error.code };
  }
};

const scenarios = {
  async share() {
    const api = newMessagePackRpcSession(withHeaders());
    const share = api.createShare("ses_npm_messagepack_01");
    const synced = api.syncShare(share.id, share.secret, [
      { type: "message", data: { id: "msg_1", text: "größer 🙂", list: [[], [1.5, -1, 2 ** 40]], "": null } },
    ]);
    const result = {
      synced: await synced,
      messages: (await api.getShare(share.id)).messages,
      missing: await outcome(api.getShare("nowhere0")),
    };
    await api.deleteShare(share.id, share.secret);
    return result;
  },

  async values() {
    const api = newMessagePackRpcSession(withHeaders());
    const heard = [];
    const echoed = await api.probeCallback((text) => {
      heard.push(text);
      return { bytes: new Uint8Array([1, 2, 255]), when: new Date(5), big: 2n ** 70n, nan: NaN };
    });
    return {
      probed: await api.probeValue({
        when: new Date(1234567890123),
        bytes: new Uint8Array(1000).fill(7).subarray(0, 3),
        nested: { list: [[], [1, [2]]], "": null },
      }),
      heard,
      bytes: [...echoed.bytes],
      buffer: echoed.bytes.buffer.byteLength,
      when: echoed.when.getTime(),
      big: `${echoed.big}`,
      nan: Number.isNaN(echoed.nan),
    };
  },

  async names() {
    const api = newMessagePackRpcSession(withHeaders());
    const nested = JSON.parse('{"__proto__": {"polluted": true}, "kept": 1}');
    const echoed = await api.probeCallback(() => nested);
    return { names: Object.keys(echoed), polluted: echoed.polluted ?? null };
  },

  async browser() {
    globalThis.WebSocket = class {
      constructor(url, offered) {
        return open(offered, { origin: new URL(url.replace(/^ws/, "http")).origin });
      }
    };
    const api = newMessagePackRpcSession(address, undefined, { token });
    return await api.whoami();
  },

  async notSelected() {
    const headers = { Authorization: `Bearer ${token}` };
    const socket = open(["rpcshare.json"], { headers });
    const closed = new Promise((resolve) => socket.on("close", (code) => resolve(code)));
    const api = newMessagePackRpcSession(socket);
    return { ...(await outcome(api.whoami())), closed: await closed };
  },

  async textFrame() {
    const socket = withHeaders();
    const api = new RpcSession(new MessagePackTransport(socket)).getRemoteMain();
    const who = api.whoami();
    socket.once("open", () => socket.emit("message", Buffer.from('["push",1]'), false));
    return await outcome(who);
  },

  async refused() {
    const socket = open(subprotocols("wrong"));
    return await outcome(newMessagePackRpcSession(socket).whoami());
  },
};

const result = await scenarios[scenario]();
console.log(JSON.stringify({ result, frames }));
process.exit();
