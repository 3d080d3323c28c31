// The conformance target, made with npm's capnweb: node conformance_server.mjs [PORT]
// Prints one line with its URL when it is ready. WebSocket at /, HTTP batch by POST to /; loopback only.
import { createServer } from "node:http";
import { nodeHttpBatchRpcResponse, newWebSocketRpcSession, RpcStub, RpcTarget } from "capnweb";
import WebSocket, { WebSocketServer } from "ws";

globalThis.WebSocket ??= WebSocket; // capnweb expects it there; Node has one of its own from 22 on

class Counter extends RpcTarget {
  #value;

  constructor(value) {
    super();
    this.#value = value;
  }

  increment(n = 1) {
    return (this.#value += n);
  }

  get value() {
    return this.#value;
  }
}

class Collector extends RpcTarget {
  #written = [];
  #end;
  #ended = new Promise((resolve, reject) => (this.#end = { resolve, reject }));

  constructor() {
    super();
    this.#ended.catch(() => {}); // nobody need ask for the result
  }

  sink() {
    return new WritableStream({
      write: (chunk) => void this.#written.push(chunk),
      close: () => this.#end.resolve(),
      abort: (reason) => this.#end.reject(reason),
    });
  }

  async result() {
    await this.#ended;
    return this.#written;
  }
}

// A stub among the arguments is lent: what is given back is another one.
const given = (value) => {
  if (value instanceof RpcStub) return value.dup();
  if (Array.isArray(value)) return value.map(given);
  if (value && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, given(item)]));
  }
  return value;
};

class ConformanceTarget extends RpcTarget {
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
    throw new RangeError("test error");
  }

  makeCounter(i) {
    return new Counter(i);
  }

  incrementCounter(counter, n = 1) {
    return counter.increment(n);
  }

  generateFibonacci(n) {
    const numbers = [0, 1];
    while (numbers.length < n) numbers.push(numbers.at(-1) + numbers.at(-2));
    return numbers.slice(0, n);
  }

  returnNull() {
    return null;
  }

  returnUndefined() {
    return undefined;
  }

  returnNumber(i) {
    return i;
  }

  async echoBlob(blob) {
    return new Blob([await blob.arrayBuffer()], { type: blob.type });
  }

  echo(value) {
    return given(value);
  }

  async sum(readable) {
    let total = 0;
    for await (const number of readable) total += number;
    return total;
  }

  count(n) {
    let next = 0;
    return new ReadableStream({
      pull(controller) {
        if (next < n) controller.enqueue(next++);
        else controller.close();
      },
    });
  }

  makeCollector() {
    return new Collector();
  }
}

const server = createServer(async (request, response) => {
  try {
    await nodeHttpBatchRpcResponse(request, response, new ConformanceTarget());
  } catch (error) {
    // The batch broke a rule of the protocol: capnweb has no answer then.
    response.writeHead(400, { "Content-Type": "text/plain" });
    response.end(error.message);
  }
});
new WebSocketServer({ server }).on("connection", (socket) => {
  newWebSocketRpcSession(socket, new ConformanceTarget());
});
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => {
  console.log(`the conformance target is at http://127.0.0.1:${server.address().port}/`);
});
