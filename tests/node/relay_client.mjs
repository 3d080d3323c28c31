// Makes calls to two servers, one of which is a relay to the other, and compares what comes of them:
// node relay_client.mjs DIRECT RELAYED FIRST COUNT
// Prints {"compared": n, "differences": […], "failed": […], "live": n}. The calls are generated, from the seeds FIRST, FIRST + 1, …
import { RpcSession, RpcTarget, WebSocketTransport } from "capnweb";
import WebSocket from "ws";

globalThis.WebSocket ??= WebSocket; // Node has one of its own from 22 on

const [direct, relayed, first, count] = process.argv.slice(2);
const PATIENCE = 20_000;

class Mine extends RpcTarget {
  #calls = 0;
  disposals = 0;

  take(f) {
    return f(++this.#calls);
  }

  async takeAndWait(f, i) {
    return { waited: await f(i) };
  }

  square(i) {
    return i * i + 1;
  }

  increment(n = 1) {
    return (this.#calls += n);
  }

  plus(n = 1) {
    return 100 + n;
  }

  get value() {
    return this.#calls;
  }

  [Symbol.dispose]() {
    this.disposals += 1;
  }
}

// Mulberry32.
function generator(seed) {
  return (n) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

function shown(value) {
  if (typeof value === "function" || value instanceof RpcTarget) return "stub";
  if (value instanceof Error) return { name: value.name, message: value.message, code: value.code, detail: value.detail };
  if (value === undefined) return "undefined";
  if (typeof value === "bigint") return `${value}n`;
  if (value instanceof Date) return `date ${value.getTime()}`;
  if (value instanceof Uint8Array) return `bytes ${[...value]}`;
  if (value instanceof ReadableStream || value instanceof WritableStream) return "stream";
  if (Array.isArray(value)) return value.map(shown);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, shown(item)]));
  }
  return value;
}

async function outcome(promise) {
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(() => resolve("no answer"), PATIENCE)));
  try {
    return await Promise.race([late, Promise.resolve(promise).then((value) => ({ value: shown(value) }))]);
  } catch (error) {
    return { error: shown(error) };
  } finally {
    clearTimeout(timer);
  }
}

const numbers = (n) =>
  new ReadableStream({
    start(controller) {
      for (let i = 0; i < n; i++) controller.enqueue(i);
      controller.close();
    },
  });

// Each makes some calls, and returns what is to be compared.
const SHAPES = {
  nested: (api, pick) => api.echo({ a: [pick(9), { b: api.square(pick(9)) }], d: new Date(pick(99)), n: 2n ** 70n }),
  pipelined: (api, pick) => api.square(api.square(api.square(pick(5)))),
  pathOfAResult: (api, pick) => api.makePair(pick(9)).deep.within.two.increment(pick(5)),
  propertyOfAResult: (api, pick) => api.makePair(pick(9)).one.value,
  echoedProperty: (api, pick) => api.echo({ c: api.makeCounter(pick(9)) }).c.increment(2),
  stubTwice: async (api, pick) => {
    const counter = await api.makeCounter(pick(9));
    return [await api.incrementCounter(counter), await api.incrementCounter(counter.dup()), await counter.increment()];
  },
  awaitedProperty: async (api, pick) => {
    const pair = api.makePair(pick(9));
    await pair;
    const two = await pair.deep.within.two;
    return two.increment(4);
  },
  later: (api, pick) => api.later({ c: api.makeCounter(pick(9)) }).c.increment(2),
  laterPassedOn: (api, pick) => api.incrementCounter(api.later({ c: api.makeCounter(pick(9)) }).c, 2),
  callback: (api, pick) => api.callFunction((x) => x + 1, pick(9)),
  asyncCallback: (api, pick) => api.callFunction(async (x) => ({ x }), pick(9)),
  failingCallback: (api, pick) => api.callFunction(() => { throw new RangeError("mine"); }, pick(9)),
  callbackWithACall: (api, pick) => api.callFunction((x) => api.square(x), pick(9)),
  echoedTarget: (api, pick) => api.echo(new Mine()).take((x) => x + pick(9)),
  echoedTargetDeep: (api, pick) => api.echo({ deep: { within: new Mine() } }).deep.within.takeAndWait((x) => [x], pick(9)),
  echoedTargetWithAStub: (api, pick) => api.echo(new Mine()).takeAndWait(api.square, pick(9)),
  ownTarget: (api, pick) => api.callSquare(new Mine(), pick(9)),
  ownMain: (api, pick) => api.callSquare(api, pick(9)),
  ownCounter: (api, pick) => api.incrementCounter(new Mine(), pick(9)),
  disposedWhenLetGo: async (api, pick) => {
    const mine = new Mine();
    await api.incrementCounter(mine, pick(9));
    for (let i = 0; i < 400 && mine.disposals === 0; i++) await new Promise((go) => setTimeout(go, 5));
    return mine.disposals;
  },
  kept: async (api, pick) => [await api.keep((x) => x * 3), await api.callKept(pick(9))],
  mapped: (api, pick) => api.list(pick(5)).map((x) => api.square(x)),
  mappedTwice: (api, pick) => api.list(pick(4)).map((x) => api.list(x).map((y) => ({ x, y: api.square(y) }))),
  mappedStubs: (api, pick) => api.list(3).map((x) => api.makeCounter(x).increment(pick.constant)),
  mappedCallback: (api) => {
    const add = api.echo({ f: (x) => x + 1 });
    return api.list(3).map((x) => add.f(x));
  },
  mappedPath: (api, pick) => api.echo([{ a: { b: pick(9) } }, { a: { b: 2 } }]).map((item) => item.a.b),
  mappedNull: (api) => api.echo(null).map((x) => api.square(x)),
  failing: (api, pick) => api.throwError(["TypeError", "Error"][pick(2)]),
  failingArgument: (api) => api.square(api.throwError("TypeError")),
  failingPath: (api) => api.throwError("Error").deep.deeper(5),
  thrownValue: (api, pick) => api.throwValue(["text", 5, { why: pick(9) }, null][pick(4)]),
  unsendable: (api) => api.unsendable(),
  undefinedProperty: (api) => api.makeCounter(1).nowhere,
  noFunction: (api) => api.echo({ a: 5 }).a(1),
  sum: (api, pick) => api.sum(numbers(pick(20))),
  read: async (api, pick) => {
    const read = [];
    for await (const chunk of await api.count(pick(20))) read.push(chunk);
    return read;
  },
  readThrough: (api, pick) => api.sum(api.count(pick(20))),
  readSome: async (api) => {
    const reader = (await api.count(50)).getReader();
    const read = [(await reader.read()).value, (await reader.read()).value];
    await reader.cancel(new Error("enough"));
    return read;
  },
  readNothing: async (api) => {
    const stream = await api.idle();
    await stream.cancel();
    return "disposed";
  },
  idleSource: async (api) => {
    const stream = await api.idle();
    stream[Symbol.dispose]?.();
    let cancelled = 0;
    for (let i = 0; i < 400 && cancelled === 0; i++) {
      cancelled = await api.cancelled();
      await new Promise((go) => setTimeout(go, 5));
    }
    return cancelled;
  },
  written: async (api, pick) => {
    const collector = await api.makeCollector();
    const writer = (await collector.sink()).getWriter();
    for (let i = 0; i < pick(6); i++) await writer.write({ i });
    await writer.write(() => 5);
    await writer.close();
    return collector.result();
  },
  aborted: async (api, pick) => {
    const collector = await api.makeCollector();
    const writer = (await collector.sink()).getWriter();
    await writer.write(1);
    await writer.abort([new Error("why"), "why", { why: 5 }, undefined][pick(4)]);
    return collector.result();
  },
  order: async (api, pick) => {
    const counter = api.makeCounter(0);
    const calls = Array.from({ length: 5 + pick(5) }, () => counter.increment());
    return Promise.all(calls);
  },
  unawaited: async (api, pick) => {
    for (let i = 0; i < pick(5); i++) api.makeCounter(i)[Symbol.dispose]();
    using_(api.makePair(2), (pair) => pair.one.increment());
    return api.square(3);
  },
};

function using_(stub, use) {
  use(stub).catch(() => {});
  stub[Symbol.dispose]();
}

// Programs of several steps, each of which may use what came of those before. None changes anything, for calls
// that go different ways to one target may overtake each other.
function program(api, pick) {
  const made = [api.makeCounter(pick(9)), api.echo({ c: new Mine() }).c];
  const watched = [];
  const any = () => made[pick(made.length)];
  for (let step = 0; step < 3 + pick(6); step++) {
    switch (pick(8)) {
      case 0: made.push(api.echo({ deep: { within: any() } }).deep.within); break;
      case 1: made.push(api.later({ c: any() }).c); break;
      case 2: watched.push(any().plus(pick(5))); break;
      case 3: watched.push(api.addTo(any(), pick(5))); break;
      case 4: watched.push(any().value); break;
      case 5: watched.push(api.echo([api.addTo(any()), pick(9)])); break;
      case 6: { const stub = any(); watched.push(api.list(2).map((x) => [x, stub.plus(x)])); break; }
      case 7: made.push(any().dup()); break;
    }
  }
  return Promise.all(watched.map(outcome));
}

async function connect(url) {
  const socket = new WebSocket(url);
  const session = new RpcSession(new WebSocketTransport(socket));
  return { api: session.getRemoteMain(), session, close: () => socket.close() };
}

async function run(url, seed) {
  const { api, session, close } = await connect(url);
  const pick = generator(seed);
  pick.constant = 2;
  const names = Object.keys(SHAPES);
  const name = seed % 3 === 2 ? "program" : names[pick(names.length)];
  const result = await outcome(name === "program" ? program(api, pick) : SHAPES[name](api, pick));
  const alive = await outcome(api.square(7)); // the session has survived
  close();
  return { name, result, alive };
}

async function settles(url) {
  // What the server made goes with the sessions.
  const { api, close } = await connect(url);
  let live;
  for (let i = 0; i < 1000 && live !== 0; i++) {
    live = await api.live();
    await new Promise((go) => setTimeout(go, 5));
  }
  close();
  return live;
}

// Those that are to fail, and of which others may; what else fails compares nothing.
const FAILING = /^(fail|unsendable|noFunction|thrownValue|aborted)/;

process.on("unhandledRejection", () => {}); // of promises that a shape has dropped
const differences = [];
const failed = [];
const seeds = Array.from({ length: +count }, (_, i) => +first + i);
async function worker() {
  for (let seed = seeds.shift(); seed !== undefined; seed = seeds.shift()) {
    const [expected, got] = await Promise.all([run(direct, seed), run(relayed, seed)]);
    if (JSON.stringify(expected) !== JSON.stringify(got)) differences.push({ seed, expected, got });
    if (JSON.stringify(expected.result).includes('{"error":') !== FAILING.test(expected.name)) failed.push(expected);
  }
}
await Promise.all([worker(), worker(), worker(), worker()]);
console.log(JSON.stringify({ compared: +count, differences, failed, live: await settles(relayed) }));
process.exit(0);
