import type { RpcTransport } from "capnweb";

/** Messages over a WebSocket that is open. capnweb's own transport needs a global `WebSocket`, which Node 20 lacks. */
export class SocketTransport implements RpcTransport {
  // Messages that have arrived, or who waits for one; and why there will be no more.
  readonly #arrived: string[] = [];
  #waiting: { resolve: (message: string) => void; reject: (reason: unknown) => void } | undefined;
  #failure: Error | undefined;

  constructor(private readonly webSocket: WebSocket) {
    webSocket.addEventListener("message", ({ data }) => {
      if (typeof data !== "string") this.#fail(new TypeError("the server sent a message that is no text"));
      else if (this.#waiting === undefined) this.#arrived.push(data);
      else this.#waiting.resolve(data);
      this.#waiting = undefined;
    });
    webSocket.addEventListener("close", ({ code, reason }) => {
      this.#fail(new Error(`the connection was closed: ${code} ${reason}`.trimEnd()));
    });
    webSocket.addEventListener("error", () => this.#fail(new Error("the connection failed")));
  }

  async send(message: string): Promise<void> {
    this.webSocket.send(message);
  }

  receive(): Promise<string> {
    const message = this.#arrived.shift();
    if (message !== undefined) return Promise.resolve(message);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }));
  }

  abort(reason: unknown): void {
    this.#fail(reason instanceof Error ? reason : new Error(String(reason)));
    this.webSocket.close(3000);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(this.#failure);
    this.#waiting = undefined;
  }
}
