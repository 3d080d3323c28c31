// Share a session in one round trip, with capnweb from npm.
//
// Run it against `rpcshare serve`, with the token in `.rpcshare/admin-token`:
//
//     npm install capnweb ws
//     RPCSHARE_TOKEN=… node examples/share_session.mjs ses_4f1d2c9b8a

import { newWebSocketRpcSession } from "capnweb";
import WebSocket from "ws";

const sessionID = process.argv[2];
const url = (process.env.RPCSHARE_URL ?? "http://127.0.0.1:8787").replace(/^http/, "ws") + "/rpc";
const headers = { Authorization: `Bearer ${process.env.RPCSHARE_TOKEN}` };
globalThis.WebSocket ??= WebSocket; // capnweb looks for one, and Node has none before version 22
const socket = new WebSocket(url, { headers });
const api = newWebSocketRpcSession(socket);

const items = [{ type: "session", data: { id: sessionID, title: "Shared from JavaScript" } }];
const share = api.createShare(sessionID);
const synced = api.syncShare(share.id, share.secret, items);
const [info, result] = await Promise.all([share, synced]);
console.log(`${info.url} has seen ${result.syncCount} sync`);
socket.close();
