// What index.d.ts promises, checked by the compiler: `npm test`.
import { RpcSession, type RpcStub } from "capnweb";
import { MessagePackTransport, newMessagePackRpcSession, subprotocols } from "../index.js";

interface Api {
  square(i: number): number;
}

const socket = new WebSocket("wss://share.example/rpc", subprotocols("token"));
const session = new RpcSession<Api>(new MessagePackTransport(socket));
export const main: RpcStub<Api> = session.getRemoteMain();

export const api = newMessagePackRpcSession<Api>("wss://share.example/rpc", undefined, { token: "token" });
export const squared: Promise<number> = Promise.resolve(api.square(4));

// @ts-expect-error -- only what the interface has can be called
api.cube(4);
