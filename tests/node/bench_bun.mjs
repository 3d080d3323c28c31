// The benchmarks' peer on Bun, with Bun's own WebSocket server: bun bench_bun.mjs DIRECTORY prints its port.
import { newBunWebSocketRpcHandler } from "capnweb";
import { directory } from "./bench_files.mjs";
import { isAuthorized, keepIn, ShareRpc } from "./bench_share.mjs";

keepIn(await directory(process.argv[2]));

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, server) {
    if (!isAuthorized(request.headers.get("authorization"))) return new Response(null, { status: 401 });
    if (!server.upgrade(request)) return new Response(null, { status: 426 });
  },
  websocket: {
    ...newBunWebSocketRpcHandler(() => new ShareRpc()),
    perMessageDeflate: false,
    maxPayloadLength: 64 << 20,
    backpressureLimit: 256 << 20,
  },
});
console.log(server.port);
