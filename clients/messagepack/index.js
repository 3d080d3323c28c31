// Cap'n Web sessions in MessagePack over a WebSocket (PROTOCOL.md, "MessagePack").
import { Decoder, Encoder } from "@msgpack/msgpack";
import { RpcSession } from "capnweb";

export const SUBPROTOCOL = "rpcshare.msgpack";

// RFC 6455 section 5.5: a close frame carries 125 bytes, two of which are the code.
const MAX_REASON_BYTES = 123;

// The close code with which a session ends that cannot go on; capnweb's own.
const ABORTED = 3000;

const CONNECTING = 0;

// Values nest 256 deep, and each array in one is written as an array in an array.
const MAX_DEPTH = 1024;

// Messages hold what JSON has and bytes, and nothing that MessagePack could be extended by.
const noExtensions = {
  tryToEncode: () => null,
  decode() {
    throw new TypeError("a message in MessagePack has an extension type");
  },
};

const utf8 = new TextDecoder();

// The decoder fails at a key "__proto__", which capnweb drops, as it does "toJSON".
const keys = {
  canBeCached: () => true,
  decode(bytes, offset, length) {
    const key = utf8.decode(bytes.subarray(offset, offset + length));
    return key === "__proto__" ? "toJSON" : key;
  },
};

function textKey(key) {
  if (typeof key !== "string") {
    throw new TypeError("a message in MessagePack has a map with a key that is no string");
  }
  return key;
}

/** A transport for capnweb's RpcSession: see index.d.ts. */
export class MessagePackTransport {
  encodingLevel = "jsonCompatibleWithBytes";

  #webSocket;
  #encoder = new Encoder({ extensionCodec: noExtensions, maxDepth: MAX_DEPTH });
  #decoder = new Decoder({ extensionCodec: noExtensions, keyDecoder: keys, mapKeyConverter: textKey });

  // Frames to be sent once the WebSocket is open; null from then on.
  #toSend = null;

  // Frames that have arrived, or who waits for one; and why there will be no more.
  #arrived = [];
  #waiting = null;
  #failure = null;

  constructor(webSocket) {
    this.#webSocket = webSocket;
    webSocket.binaryType = "arraybuffer";
    if (webSocket.readyState === CONNECTING) {
      this.#toSend = [];
      webSocket.addEventListener("open", () => this.#opened());
    } else {
      this.#checkSubprotocol();
    }
    webSocket.addEventListener("message", (event) => this.#take(event.data));
    webSocket.addEventListener("close", (event) => {
      this.#fail(new Error(`Peer closed WebSocket: ${event.code} ${event.reason}`));
    });
    webSocket.addEventListener("error", () => this.#fail(new Error("WebSocket connection failed.")));
  }

  send(message) {
    const frame = this.#encoder.encode(message);
    if (this.#toSend === null) {
      this.#webSocket.send(frame);
    } else {
      this.#toSend.push(frame);
    }
    return frame.byteLength;
  }

  async receive() {
    const frame = await this.#next();
    if (typeof frame === "string") {
      throw new TypeError("a message in MessagePack comes in a binary frame");
    }
    return withOwnBytes(this.#decoder.decode(frame));
  }

  abort(reason) {
    this.#failure ??= reason;
    this.#webSocket.close(ABORTED, closeReason(reason instanceof Error ? reason.message : `${reason}`));
  }

  #next() {
    if (this.#arrived.length > 0) return Promise.resolve(this.#arrived.shift());
    if (this.#failure !== null) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }));
  }

  #opened() {
    const frames = this.#toSend;
    this.#toSend = null;
    if (this.#checkSubprotocol()) {
      for (const frame of frames) this.#webSocket.send(frame);
    }
  }

  #checkSubprotocol() {
    if (this.#webSocket.protocol === SUBPROTOCOL) return true;
    this.#fail(new Error(`the server has not selected the subprotocol ${SUBPROTOCOL}`));
    return false;
  }

  #take(frame) {
    if (this.#waiting !== null) {
      this.#waiting.resolve(frame);
      this.#waiting = null;
    } else if (this.#failure === null) {
      this.#arrived.push(frame);
    }
  }

  #fail(error) {
    this.#failure ??= error;
    this.#waiting?.reject(this.#failure);
    this.#waiting = null;
  }
}

/** Start a session over a WebSocket, or over a new one to a URL: see index.d.ts. */
export function newMessagePackRpcSession(webSocket, localMain, options = {}) {
  const { token, ...sessionOptions } = options;
  if (typeof webSocket === "string") {
    webSocket = new WebSocket(webSocket, subprotocols(token));
  }
  return new RpcSession(new MessagePackTransport(webSocket), localMain, sessionOptions).getRemoteMain();
}

/** What to offer in the handshake: see index.d.ts. */
export function subprotocols(token) {
  // A server that knows neither may select the first and speak JSON, which must not be taken for the other.
  const offered = ["rpcshare.json", SUBPROTOCOL];
  if (token === undefined) return offered;
  const base64url = btoa(token).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  return [...offered, `bearer.${base64url}`];
}

// The decoder's bytes are windows on the frame: who gets them would find all of it in their `buffer`.
function withOwnBytes(value) {
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const item = value[i];
      if (item instanceof Uint8Array) value[i] = item.slice();
      else if (typeof item === "object" && item !== null) withOwnBytes(item);
    }
  } else if (typeof value === "object" && value !== null) {
    // Bytes are never the value of a name: ["bytes", …] is around them.
    for (const name in value) {
      const item = value[name];
      if (typeof item === "object" && item !== null) withOwnBytes(item);
    }
  }
  return value;
}

// As much of a text as a close frame has room for, cut between characters.
function closeReason(text) {
  const bytes = new TextEncoder().encode(text);
  return new TextDecoder().decode(bytes.subarray(0, MAX_REASON_BYTES), { stream: true });
}
