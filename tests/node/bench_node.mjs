// The benchmarks' peer on Node, with ws: node bench_node.mjs DIRECTORY prints its port when it is ready.
import { createServer } from "node:http";
import { newWebSocketRpcSession } from "capnweb";
import WebSocket, { WebSocketServer } from "ws";
import { directory } from "./bench_files.mjs";
import { isAuthorized, keepIn, ShareRpc } from "./bench_share.mjs";

globalThis.WebSocket = WebSocket; // capnweb expects it there; Node has one of its own from 22 on
keepIn(await directory(process.argv[2]));

const server = createServer();
const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: 64 << 20 });
server.on("upgrade", (request, socket, head) => {
  if (!isAuthorized(request.headers.authorization)) return socket.destroy();
  sockets.handleUpgrade(request, socket, head, (webSocket) => newWebSocketRpcSession(webSocket, new ShareRpc()));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
