// A WebSocket to the server, by what the platform has: headers where it can set them, else a subprotocol.
import type { ServerConfig } from "./host.js";
import { Unreachable } from "./failure.js";

/** An open WebSocket, and how to be rid of it at once. */
export interface OpenSocket {
  readonly webSocket: WebSocket;
  /** Ends the connection without a word, so that nothing that waits to be sent is sent any more. */
  destroy(): void;
}

/** Connects, within `timeout` milliseconds. Rejects with Unreachable. */
export async function openSocket(config: ServerConfig, timeout: number): Promise<OpenSocket> {
  const url = `${config.url.replace(/^http/, "ws").replace(/\/+$/, "")}/rpc`;
  const socket = await dial(url, config.token);
  const { webSocket, destroy } = socket;
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => fail("the handshake takes too long"), timeout);
    const fail = (message: string) => {
      clearTimeout(timer);
      reject(new Unreachable(message, false));
      destroy();
    };
    webSocket.addEventListener("open", () => {
      clearTimeout(timer);
      resolve();
    });
    webSocket.addEventListener("error", (event) => {
      fail("message" in event && event.message !== "" ? String(event.message) : "the WebSocket was refused");
    });
    webSocket.addEventListener("close", () => fail("the WebSocket was closed before it was open"));
  });
  return socket;
}

async function dial(url: string, token: string | undefined): Promise<OpenSocket> {
  const headers: Record<string, string> = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  if ("Bun" in globalThis) {
    // Bun's own takes headers where a browser's takes protocols, and has `terminate`.
    const Native = WebSocket as unknown as new (url: string, options: object) => WebSocket & { terminate(): void };
    const webSocket = new Native(url, { headers });
    return { webSocket, destroy: () => webSocket.terminate() };
  }
  if (typeof process !== "undefined" && process.versions?.node !== undefined) {
    const { WebSocket: NodeWebSocket } = await import("ws");
    const socket = new NodeWebSocket(url, { headers, perMessageDeflate: false });
    // The network may come back later: what the kernel still holds must not arrive then, after what is sent anew.
    let reset = () => socket.terminate();
    socket.once("upgrade", (response) => {
      reset = () => response.socket.resetAndDestroy();
    });
    return { webSocket: socket as unknown as WebSocket, destroy: () => reset() };
  }
  const webSocket = new WebSocket(url, token === undefined ? ["rpcshare.json"] : ["rpcshare.json", bearer(token)]);
  return { webSocket, destroy: () => webSocket.close() };
}

/** The subprotocol that carries a token for browsers (PROTOCOL.md, W-5). */
function bearer(token: string): string {
  return `bearer.${btoa(token).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}`;
}
