import type { RpcCompatible, RpcSessionOptions, RpcStub, RpcTransportWithCustomEncoding } from "capnweb";

/** The WebSocket subprotocol of sessions in MessagePack. */
export declare const SUBPROTOCOL: "rpcshare.msgpack";

/**
 * A transport for capnweb's `RpcSession`: messages in MessagePack, one in each binary frame of a WebSocket.
 *
 * The session ends with an error if the server does not select {@link SUBPROTOCOL}, or sends a text frame,
 * or one that is no message.
 */
export declare class MessagePackTransport implements RpcTransportWithCustomEncoding {
  readonly encodingLevel: "jsonCompatibleWithBytes";

  /**
   * @param webSocket Open or about to be, with {@link SUBPROTOCOL} among the subprotocols that it offered. It may
   *     be the browser's, Node's, or one of the package `ws`. Its `binaryType` is set.
   */
  constructor(webSocket: WebSocketLike);

  /** Sends a message; returns its size in bytes. */
  send(message: unknown): number;

  /** Receives a message. Rejects once the WebSocket is closed, and for a frame that holds no message. */
  receive(): Promise<unknown>;

  /** Closes the WebSocket with code 3000 and the message of `reason`. */
  abort(reason: unknown): void;
}

/**
 * Starts a session in MessagePack, and returns the stub of the other side's main target. It is
 * `newWebSocketRpcSession` of capnweb in all but the encoding.
 *
 * @param webSocket As for {@link MessagePackTransport}, or a `ws:` or `wss:` URL to connect to.
 * @param localMain What the other side finds as its remote main.
 * @param options Those of capnweb's `RpcSession`, and `token`: with a URL, a credential for the handshake.
 */
export declare function newMessagePackRpcSession<T extends RpcCompatible<T> = any>(
  webSocket: WebSocketLike | string,
  localMain?: any,
  options?: RpcSessionOptions & { token?: string },
): RpcStub<T>;

/**
 * What a handshake has to offer: {@link SUBPROTOCOL} and, for browsers, which cannot set headers, the
 * subprotocol that carries `token`. JSON is offered first, for servers that know none of them and select
 * whatever comes first: the session ends with an error there.
 */
export declare function subprotocols(token?: string): string[];

/** What is used of a WebSocket. */
export interface WebSocketLike {
  binaryType: string;
  readonly readyState: number;
  readonly protocol: string;
  send(data: Uint8Array): void;
  close(code?: number, reason?: string): void;
  addEventListener(type: "open" | "error", listener: () => void): void;
  addEventListener(type: "message", listener: (event: { data: any }) => void): void;
  addEventListener(type: "close", listener: (event: { code: number; reason: string }) => void): void;
}
