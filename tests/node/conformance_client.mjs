// npm's capnweb as a client of the conformance target: node conformance_client.mjs URL [SCENARIO]
// ws: makes every kind of call in one session; http: what can be said in batches. Prints one JSON object.
import { newHttpBatchRpcSession, RpcSession, RpcTarget, WebSocketTransport } from "capnweb";
import WebSocket from "ws";

globalThis.WebSocket ??= WebSocket; // capnweb expects it there; Node has one of its own from 22 on

class Doubler extends RpcTarget {
  square(i) {
    return 2 * i;
  }
  increment(n) {
    return n + 100;
  }
}

const failure = async (promise) => {
  try {
    await promise;
    return null;
  } catch (error) {
    return { type: error.constructor.name, message: error.message };
  }
};

const read = async (stream) => {
  const values = [];
  for await (const value of stream) values.push(value);
  return values;
};

const streamOf = (...values) =>
  new ReadableStream({
    start(controller) {
      for (const value of values) controller.enqueue(value);
      controller.close();
    },
  });

const kind = (value) => Object.prototype.toString.call(value).slice(8, -1);

const scenarios = {
  async calls(api, hold) {
    const numbers = hold(await api.generateFibonacci(6));
    const called = hold(await api.callSquare(api, 7));
    return {
      square: await api.square(12),
      callSquare: called.result,
      numbers: [...numbers],
      null: await api.returnNull(),
      undefined: kind(await api.returnUndefined()),
      number: await api.returnNumber(-1.5),
      error: await failure(api.throwError()),
      noMethod: await failure(api.nothing()),
    };
  },

  async counters(api, hold) {
    const counter = hold(await api.makeCounter(5));
    const pipelined = hold(api.makeCounter(1));
    return {
      increment: [await counter.increment(), await counter.increment(10)],
      value: await counter.value,
      handedBack: await api.incrementCounter(counter, 4),
      byDefault: await api.incrementCounter(counter),
      pipelined: await pipelined.increment(2),
      pipelinedHandedBack: await api.incrementCounter(pipelined, 3),
    };
  },

  async callbacks(api, hold) {
    const heard = [];
    const called = hold(await api.callFunction((i) => (heard.push(i), i + 1), 41));
    const promised = hold(await api.callSquare(new Doubler(), 21));
    return {
      result: called.result,
      heard,
      target: await promised.result,
      counter: await api.incrementCounter(new Doubler(), 11),
      failing: await failure(
        api.callFunction(() => {
          throw new TypeError("not today");
        }, 1),
      ),
      // At the top of a result capnweb does not know its own function again.
      ownAgain: await hold(await api.echo({ own: (i) => i * 3 })).own(5),
    };
  },

  async values(api, hold) {
    const value = {
      list: [1, [2, []], {}],
      undefined: undefined,
      numbers: [Infinity, -Infinity, NaN, -0.5, 2 ** 60],
      big: 12345678901234567890n,
      date: new Date(1757214689123),
      bytes: new Uint8Array([0, 1, 255]),
      floats: new Float64Array([1.5, -2.5]),
      shorts: new Int16Array([-1, 256]),
      buffer: new Uint8Array([7, 8]).buffer,
      error: new RangeError("m", { cause: new TypeError("c") }),
      url: new URL("https://example.com/a?b"),
      headers: new Headers({ "x-a": "1" }),
    };
    const back = hold(await api.echo(value));
    return {
      list: back.list,
      hasUndefined: "undefined" in back && back.undefined === undefined,
      numbers: back.numbers.map(String),
      big: String(back.big),
      date: back.date.toISOString(),
      bytes: [kind(back.bytes), ...back.bytes],
      floats: [kind(back.floats), ...back.floats],
      shorts: [kind(back.shorts), ...back.shorts],
      buffer: [kind(back.buffer), ...new Uint8Array(back.buffer)],
      error: [back.error.constructor.name, back.error.message, back.error.cause.constructor.name, back.error.cause.message],
      url: back.url.href,
      headers: [...back.headers],
    };
  },

  async blobs(api) {
    const blob = await api.echoBlob(new Blob(["hello, ", new Uint8Array([0, 255])], { type: "text/x-mixed" }));
    const empty = await api.echoBlob(new Blob([]));
    const large = await api.echoBlob(new Blob([new Uint8Array(1_000_000).fill(7)]));
    return {
      type: blob.type,
      bytes: [...new Uint8Array(await blob.arrayBuffer())],
      empty: [empty.size, empty.type],
      large: [large.size, new Uint8Array(await large.arrayBuffer()).every((byte) => byte === 7)],
    };
  },

  async bodies(api, hold) {
    const request = new Request("https://example.com/a", { method: "POST", body: "question", headers: { "x-a": "1" } });
    const asked = hold(await api.echo(request));
    const answered = hold(await api.echo(new Response("answer", { status: 201, headers: { "x-b": "2" } })));
    return {
      request: [asked.url, asked.method, asked.headers.get("x-a"), await asked.text()],
      response: [answered.status, answered.headers.get("x-b"), await answered.text()],
    };
  },

  async streams(api, hold) {
    const collector = await api.makeCollector();
    const sink = await collector.sink();
    const writer = sink.getWriter();
    for (const value of ["a", { b: [1] }, new Date(0)]) await writer.write(value);
    await writer.close();
    const collected = hold(await collector.result());
    const written = collected.map((value) => (value instanceof Date ? value.toISOString() : value));
    collector[Symbol.dispose]();
    return {
      sum: await api.sum(streamOf(1, 2, 3.5)),
      sumOfNothing: await api.sum(streamOf()),
      count: await read(await api.count(5)),
      countOfMany: (await read(await api.count(2000))).length,
      countHandedBack: await api.sum(hold(api.count(10))),
      written,
      broken: await failure(
        api.sum(
          new ReadableStream({
            start(controller) {
              controller.enqueue(1);
              controller.error(new RangeError("ran out"));
            },
          }),
        ),
      ),
    };
  },

  async cancelled(api) {
    const stream = await api.count(1_000_000);
    const reader = stream.getReader();
    const first = [(await reader.read()).value, (await reader.read()).value];
    await reader.cancel(new Error("enough"));
    // The server takes note of it after what it has sent already.
    return { first, after: await api.square(3) };
  },

  async map(api, hold) {
    const numbers = hold(api.generateFibonacci(6));
    const squares = hold(await numbers.map((i) => ({ i, square: api.square(i) })));
    const lists = hold(await numbers.map((i) => api.generateFibonacci(i).map((j) => api.returnNumber(j))));
    return {
      squares: squares.map(({ i, square }) => [i, square]),
      lists: lists.map((list) => [...list]),
      ofNull: await hold(api.returnNull()).map((x) => api.square(x)),
      ofOne: await hold(api.square(3)).map((x) => api.square(x)),
    };
  },

  async dispose(api) {
    const counter = await api.makeCounter(1);
    const other = counter.dup();
    counter[Symbol.dispose]();
    const afterFirst = await other.increment();
    other[Symbol.dispose]();
    const unused = api.makeCounter(1);
    unused[Symbol.dispose]();
    let disposed = 0;
    class Disposable extends RpcTarget {
      increment() {
        return 1;
      }
      [Symbol.dispose]() {
        disposed++;
      }
    }
    await api.incrementCounter(new Disposable());
    await api.square(1);
    return { afterFirst, disposed };
  },

  // capnweb never lets go of a stub that a mapper function has captured, so this one is not counted.
  async mapWithCapture(api, hold) {
    const counter = hold(await api.makeCounter(0));
    const counted = hold(await hold(api.generateFibonacci(6)).map((i) => counter.increment(i)));
    return { counted: [...counted] };
  },
};

const overWebSocket = async (url) => {
  const socket = new WebSocket(url);
  const session = new RpcSession(new WebSocketTransport(socket));
  const api = session.getRemoteMain();
  const results = {};
  const start = session.getStats();
  for (const [name, scenario] of Object.entries(scenarios)) {
    if (only && name !== only) continue;
    const held = [];
    results[name] = await scenario(api, (value) => (held.push(value), value));
    for (const value of held) value[Symbol.dispose]();
    // Whatever the last messages brought about is under way by the time of this answer.
    await api.returnNull();
    await new Promise((resolve) => setTimeout(resolve, 0));
    results[name].stats = session.getStats();
  }
  socket.close();
  return { start, results };
};

const overBatches = async (url) => {
  const chained = newHttpBatchRpcSession(url);
  const counter = chained.makeCounter(4);
  const [incremented, squared, failed, mapped] = await Promise.all([
    counter.increment(5),
    chained.square(counter.value),
    failure(chained.throwError()),
    chained.generateFibonacci(5).map((i) => chained.square(i)),
  ]);
  const values = newHttpBatchRpcSession(url);
  const echoed = await values.echo({ date: new Date(0), list: [[1n, undefined]] });
  return {
    incremented,
    squared,
    failed,
    mapped: [...mapped],
    echoed: [echoed.date.toISOString(), String(echoed.list[0][0]), echoed.list[0].length],
  };
};

const [url, only] = process.argv.slice(2);
const result = await (url.startsWith("http") ? overBatches(url) : overWebSocket(url));
console.log(JSON.stringify(result, null, 1));
