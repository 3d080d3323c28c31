// Start an agent, send it a message and watch it, all in one round trip; allow what it asks for.
//
// Run it where the npm packages capnweb and ws are installed, against a server that runs agents:
//
//     RPCSHARE_TOKEN=… node examples/agent.mjs wsp_0123456789abcdef01234567 "Fix the failing test"
import { newWebSocketRpcSession } from "capnweb";
import WebSocket from "ws";

globalThis.WebSocket = WebSocket; // capnweb expects it there; Node has one of its own from 22 on
const url = (process.env.RPCSHARE_URL ?? "http://127.0.0.1:8787").replace(/^http/, "ws");
const socket = new WebSocket(`${url}/rpc`, { headers: { Authorization: `Bearer ${process.env.RPCSHARE_TOKEN}` } });
const rpc = newWebSocketRpcSession(socket);
const [workspace, prompt] = process.argv.slice(2);

const agent = rpc.agents().start({ workspace, budget: { turns: 10 } });
const sent = agent.send(prompt);
const reader = (await agent.watch()).getReader();
const texts = new Map();
for (;;) {
  const { done, value: event } = await reader.read();
  if (done) break;
  if (event.approval) {
    console.log(`allowed: ${event.patterns.join(", ")}`);
    await event.approval.answer("once");
  }
  for (const { type, data } of event.data ?? []) {
    if (type === "part" && data.type === "text") texts.set(data.id, data.text);
  }
  if (event.type === "turn" && event.state === "ended") break;
}
await reader.cancel();
console.log([...texts.values()].join("\n"));
await sent;
await agent.terminate();
socket.close();
