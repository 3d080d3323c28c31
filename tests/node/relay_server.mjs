// What is behind the relay of tests/interop/test_npm_relay.py: a server made with npm's capnweb.
// Prints its port. Each connection is a session with a target of its own.
import { newWebSocketRpcSession, RpcTarget } from "capnweb";
import WebSocket, { WebSocketServer } from "ws";

globalThis.WebSocket ??= WebSocket; // capnweb expects it there; Node has one of its own from 22 on

// Targets that have been made and not been disposed of, in all sessions.
let live = 0;

class Counter extends RpcTarget {
  #value;

  constructor(value) {
    super();
    this.#value = value;
    live += 1;
  }

  increment(n = 1) {
    return (this.#value += n);
  }

  plus(n = 1) {
    return this.#value + n;
  }

  get value() {
    return this.#value;
  }

  [Symbol.dispose]() {
    live -= 1;
  }
}

class Collector extends RpcTarget {
  #done = Promise.withResolvers?.() ?? deferred();
  #taken = [];

  constructor() {
    super();
    this.#done.promise.catch(() => {});
  }

  sink() {
    return new WritableStream({
      write: (chunk) => void this.#taken.push(typeof chunk === "function" ? "stub" : chunk),
      close: () => this.#done.resolve(this.#taken),
      abort: (reason) => this.#done.reject(reason),
    });
  }

  result() {
    return this.#done.promise;
  }
}

function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

function withDups(value) {
  if (typeof value === "function") return value.dup();
  if (Array.isArray(value)) return value.map(withDups);
  if (Object.getPrototypeOf(value ?? 0) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, withDups(item)]));
}

class Target extends RpcTarget {
  #kept = [];
  #cancelled = 0;

  square(i) {
    return i * i;
  }

  makeCounter(i) {
    return new Counter(i);
  }

  makePair(i) {
    return { one: new Counter(i), deep: { within: { two: new Counter(i + 1) } } };
  }

  incrementCounter(counter, n = 1) {
    return counter.increment(n);
  }

  addTo(counter, n = 1) {
    return counter.plus(n);
  }

  echo(value) {
    return withDups(value);
  }

  later(value) {
    const held = withDups(value);
    return new Promise((resolve) => setTimeout(() => resolve(held), 2));
  }

  async callFunction(func, i) {
    return { result: await func(i) };
  }

  callSquare(self, i) {
    return { result: self.square(i) };
  }

  list(n) {
    return Array.from({ length: n }, (_, i) => i);
  }

  keep(stub) {
    this.#kept.push(stub.dup());
    return this.#kept.length;
  }

  async callKept(i) {
    const stub = this.#kept.pop();
    const result = await stub(i);
    stub[Symbol.dispose]();
    return result;
  }

  throwError(name) {
    const error = name === "TypeError" ? new TypeError("of a kind") : new Error("of none");
    throw Object.assign(error, { code: "CODE", detail: { list: [1] } });
  }

  throwValue(value) {
    throw value;
  }

  unsendable() {
    return { map: new Map() };
  }

  async sum(readable) {
    let total = 0;
    for await (const chunk of readable) total += chunk;
    return total;
  }

  count(n) {
    let i = 0;
    return new ReadableStream({
      pull: (controller) => (i < n ? controller.enqueue(i++) : controller.close()),
    });
  }

  idle() {
    return new ReadableStream({
      start(controller) {
        controller.enqueue("one");
        controller.enqueue("two");
      },
      cancel: () => void (this.#cancelled += 1),
    });
  }

  cancelled() {
    return this.#cancelled;
  }

  makeCollector() {
    return new Collector();
  }

  live() {
    return live;
  }
}

const server = new WebSocketServer({ port: 0, host: "127.0.0.1" }, () => {
  console.log(server.address().port);
});
server.on("connection", (socket) => newWebSocketRpcSession(socket, new Target()));

process.on("unhandledRejection", () => {}); // of what a caller has dropped
