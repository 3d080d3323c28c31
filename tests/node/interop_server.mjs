// A server made with npm's capnweb, for tests/interop: node interop_server.mjs
// Prints its port when it is ready. Each WebSocket connection is a session with a target of its own.
import { RpcSession, RpcTarget, WebSocketTransport } from "capnweb";
import WebSocket, { WebSocketServer } from "ws";
import { values } from "./interop_values.mjs";

globalThis.WebSocket ??= WebSocket; // capnweb expects it there; Node has one of its own from 22 on

class Counter extends RpcTarget {
  #value;
  #disposed;

  constructor(value, disposed) {
    super();
    this.#value = value;
    this.#disposed = disposed;
  }

  increment(n = 1) {
    return (this.#value += n);
  }

  get value() {
    return this.#value;
  }

  [Symbol.dispose]() {
    this.#disposed();
  }
}

class Target extends RpcTarget {
  #socket;
  #kept;
  #log = [];
  #disposals = 0;
  session;

  constructor(socket) {
    super();
    this.#socket = socket;
  }

  square(i) {
    return i * i;
  }

  callSquare(self, i) {
    return { result: self.square(i) };
  }

  async callFunction(func, i) {
    return { result: await func(i) };
  }

  throwError() {
    throw Object.assign(new RangeError("test error"), { code: "OUT", detail: { list: [1] } });
  }

  makeCounter(i) {
    return new Counter(i, () => ++this.#disposals);
  }

  incrementCounter(counter, n = 1) {
    return counter.increment(n);
  }

  // The counter's value before and after, asked for and called in one go.
  async useCounter(counter) {
    return await Promise.all([counter.value, counter.increment(5), counter.value]);
  }

  generateFibonacci(n) {
    const numbers = [0, 1];
    while (numbers.length < n) numbers.push(numbers.at(-1) + numbers.at(-2));
    return numbers.slice(0, n);
  }

  returnNull() {
    return null;
  }

  returnUndefined() {}

  returnNumber(i) {
    return i;
  }

  echo(value) {
    return value;
  }

  valueOf_(name) {
    return values[name];
  }

  note(value) {
    this.#log.push(value);
  }

  noted() {
    return this.#log;
  }

  keep(stub) {
    this.#kept = stub.dup();
  }

  async callKept(value) {
    return await this.#kept(value);
  }

  release() {
    this.#kept[Symbol.dispose]();
  }

  // Calls back, and reports what the callback threw.
  async errorOf(callback) {
    try {
      await callback();
      return null;
    } catch (error) {
      return { name: error.name, message: error.message, code: error.code ?? null };
    }
  }

  createShare(id) {
    return { id: id.slice(-2), secret: "secret of " + id };
  }

  syncShare(id, secret, data) {
    return { id, secret, data };
  }

  stats() {
    return this.session.getStats();
  }

  disposals() {
    return this.#disposals;
  }

  hangUp() {
    this.#socket.terminate();
  }
}

const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
server.on("connection", (socket) => {
  const target = new Target(socket);
  target.session = new RpcSession(new WebSocketTransport(socket), target);
});
server.on("listening", () => console.log(server.address().port));
