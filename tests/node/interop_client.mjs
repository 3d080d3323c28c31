// npm's capnweb as the client of the server in tests/interop: node interop_client.mjs URL
// Runs every case on a connection of its own; prints one JSON object: for each case null, or what went wrong.
import assert from "node:assert/strict";
import { RpcSession, RpcStub, RpcTarget, WebSocketTransport } from "capnweb";
import WebSocket from "ws";
import { values } from "./interop_values.mjs";

globalThis.WebSocket = WebSocket; // capnweb expects it there; Node has one of its own from 22 on
const [url] = process.argv.slice(2);

class Counter extends RpcTarget {
  #value;
  disposals = 0;

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

  [Symbol.dispose]() {
    ++this.disposals;
  }
}

class Taker extends RpcTarget {
  take(f) {
    return f(1);
  }

  use(counter) {
    return counter.increment();
  }

  plus(n) {
    return 100 + n;
  }
}

const eventually = async (condition) => {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 1));
};

// A promise of capnweb's is a function too, which assert.rejects() would call.
const rejects = (promise, expected) => assert.rejects((async () => await promise)(), expected);

const cases = {
  async targetThatComesBackIsCalledWithACallback(api) {
    // Our side names the callback in a call, and lets go of it after.
    assert.equal(await api.echo(new Taker()).take((x) => x + 1), 2);
    assert.equal(await api.echo({ deep: { within: new Taker() } }).deep.within.take(async (x) => x + 2), 3);
    assert.equal(await api.square(3), 9);
  },

  async targetThatComesBackIsCalledWithAStub(api) {
    assert.equal(await api.echo(new Taker()).use(api.makeCounter(4)), 5);
    assert.equal(await api.echo(new Taker()).use(new Counter(5)), 6);
    assert.equal(await api.square(3), 9);
  },

  async targetThatComesBackIsMappedOver(api) {
    const taker = api.echo({ t: new Taker() }).t;
    const found = await api.generateFibonacci(3).map((x) => taker.plus(x));
    assert.deepEqual([...found], [100, 101, 101]);
    assert.equal(await api.square(3), 9);
  },

  async propertyThatIsAStubSettles(api) {
    const result = api.echo({ c: api.makeCounter(5), deep: { within: api.makeCounter(6) } });
    const [one, two] = await Promise.all([result.c, result.deep.within]);
    assert.equal(await one.increment(), 6);
    assert.equal(await two.increment(), 7);
  },

  async propertyThatIsAStubOfTheAskerSettles(api) {
    // npm's client gets the answer, and cannot await a target of its own.
    await rejects(api.echo({ c: new Counter(3) }).c, /Tried to resolve a non-promise stub/);
    assert.equal(await api.square(3), 9);
  },

  async propertyThatIsAStubIsPassedOn(api) {
    const result = api.echo({ c: new Counter(3), deep: { within: api.makeCounter(5) } });
    assert.equal(await api.incrementCounter(result.c), 4);
    assert.equal(await api.incrementCounter(result.deep.within, 2), 7);
    assert.equal(await api.incrementCounter(api.echo({ again: result.c }).again), 5);
  },

  async propertyThatIsAStubOfAnAwaitedResult(api) {
    const result = await api.echo({ c: api.makeCounter(3), mine: new Counter(5) });
    assert.equal(await result.c.increment(), 4);
    assert.equal(await result.mine.increment(), 6);
    assert.equal(await api.incrementCounter(result.c, 2), 6);
  },

  async square(api) {
    assert.equal(await api.square(7), 49);
  },

  async callSquare(api) {
    assert.deepEqual({ ...(await api.callSquare(api, 5)) }, { result: 25 });
  },

  async callFunction(api) {
    assert.equal((await api.callFunction((i) => i * 3, 5)).result, 15);
    assert.equal((await api.callFunction(async (i) => i * 4, 5)).result, 20);
  },

  async throwError(api) {
    await rejects(api.throwError(), (error) => {
      assert(error instanceof RangeError);
      assert.equal(error.message, "test error");
      assert.equal(error.code, "OUT");
      assert.deepEqual(error.detail, { list: [1] });
      return true;
    });
  },

  async concealedError(api) {
    await rejects(api.crash(), (error) => {
      assert.equal(error.message, "Internal server error");
      assert.equal(error.code, "INTERNAL");
      assert(!error.stack.includes(".py"));
      return true;
    });
  },

  async errorsOfPipelinedCalls(api) {
    await rejects(api.throwError().deeper(1), { name: "RangeError", message: "test error" });
    await rejects(api.square(api.throwError()), { name: "RangeError", message: "test error" });
    await rejects(api.nowhere(), { name: "TypeError", message: "'nowhere' is not a function." });
    await rejects(api.square("x"), { code: "INVALID_ARGUMENT" });
  },

  async makeCounter(api) {
    const counter = await api.makeCounter(4);
    assert.equal(await counter.increment(), 5);
    assert.equal(await counter.increment(4), 9);
    assert.equal(await counter.value, 9);
  },

  async pipelining(api) {
    const counter = api.makeCounter(4);
    const answers = await Promise.all([counter.increment(2), counter.value, counter.increment(), counter.value]);
    // A property is read when it is awaited, which here is after both calls have been made.
    assert.deepEqual(answers, [6, 7, 7, 7]);
    assert.equal(await api.square(api.square(api.square(2))), 256);
    assert.equal(await api.returnNumber(api.callSquare(api, 3).result), 9);
  },

  async incrementCounter(api) {
    const remote = await api.makeCounter(1);
    assert.equal(await api.incrementCounter(remote, 5), 6);
    const local = new Counter(10);
    assert.equal(await api.incrementCounter(local), 11);
    assert.equal(await api.incrementCounter(api.makeCounter(3)), 4);
  },

  async callbacksBothWays(api) {
    const answers = await api.useCounter(new Counter(1));
    assert.deepEqual([...answers], [6, 6, 6]);
    assert.equal(await api.callTwice((n) => n + 1, 5), 7);
    assert.deepEqual(
      { ...(await api.errorOf(() => { throw Object.assign(new RangeError("far"), { code: "F" }); })) },
      { name: "RangeError", message: "far", code: "F" },
    );
  },

  async functionsAsResults(api) {
    const add = await api.adder(5);
    assert.equal(await add(3), 8);
    const later = api.adder(1);
    assert.equal(await later(3), 4);
  },

  async keptCallback(api) {
    const seen = [];
    await api.keep((value) => { seen.push(value); return seen.length; });
    assert.equal(await api.callKept("a"), 1);
    assert.equal(await api.callKept("b"), 2);
    assert.deepEqual(seen, ["a", "b"]);
    await api.release();
  },

  async generateFibonacci(api) {
    assert.deepEqual([...(await api.generateFibonacci(10))], [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]);
    assert.deepEqual([...(await api.generateFibonacci(0))], []);
  },

  async returns(api) {
    assert.equal(await api.returnNull(), null);
    assert.equal(await api.returnUndefined(), undefined);
    assert.equal(await api.returnNumber(-2.5), -2.5);
  },

  async valuesEchoed(api) {
    for (const [name, value] of Object.entries(values)) {
      assert.deepEqual(strip(await api.echo(value)), strip(value), name);
    }
  },

  async valuesSent(api) {
    for (const [name, value] of Object.entries(values)) {
      assert.deepEqual(strip(await api.valueOf_(name)), strip(value), name);
    }
  },

  async order(api) {
    const calls = [];
    for (let i = 0; i < 100; i++) calls.push(i % 3 ? api.note(i) : api.noteLater(i));
    await Promise.all(calls);
    assert.deepEqual([...(await api.noted())], [...Array(100).keys()]);
  },

  async undefinedInTheMiddle(api) {
    assert.equal(await api.greet("Ada", undefined, "?"), "hello, Ada?");
  },

  async disposal(api) {
    const counter = new Counter(1);
    await api.note(counter);
    await eventually(() => counter.disposals > 0);
    assert.equal(counter.disposals, 1);
    const before = await api.disposals();
    const remote = await api.makeCounter(1);
    await remote.increment();
    remote[Symbol.dispose]();
    await eventually(async () => (await api.disposals()) > before);
    assert.equal(await api.disposals(), before + 1);
  },

  async passingBackAStubOfOurs(api) {
    const counter = new RpcStub(new Counter(1));
    assert.equal(await api.incrementCounter(counter, 5), 6);
    assert.equal(await counter.increment(5), 11);
  },

  async stats(api, { session }) {
    const start = await api.stats();
    for (let i = 0; i < 20; i++) {
      const counter = await api.makeCounter(i);
      await Promise.all([
        counter.increment(),
        counter.value,
        api.callFunction((x) => x, i),
        api.incrementCounter(new Counter(i)),
        api.callSquare(api, i),
        api.errorOf(() => { throw new Error("no"); }),
        rejects(api.throwError()),
      ]);
      counter[Symbol.dispose]();
    }
    await eventually(async () => {
      const now = await api.stats();
      return now.imports === start.imports && now.exports === start.exports;
    });
    const own = session.getStats();
    assert.deepEqual(own, { imports: 1, exports: 1 });
  },

  async createWithData(api, { frames }) {
    const data = [{ type: "session", data: { id: "ses_ab" } }];
    assert.equal((await api.createShare("ses_ab", data)).id, "ab");
    assert.deepEqual(beforeAnyReply(frames), [
      ["push", ["pipeline", 0, ["createShare"], ["ses_ab", [data]]]],
      ["pull", 1],
    ]);
  },

  async createThenSync(api, { frames }) {
    const share = api.createShare("ses_ab");
    const synced = await api.syncShare(share.id, share.secret, [1]);
    assert.deepEqual(strip(synced), { id: "ab", secret: "secret of ses_ab", data: [1] });
    assert.deepEqual(beforeAnyReply(frames), [
      ["push", ["pipeline", 0, ["createShare"], ["ses_ab"]]],
      ["push", ["pipeline", 0, ["syncShare"], [["pipeline", 1, ["id"]], ["pipeline", 1, ["secret"]], [[1]]]]],
      ["pull", 2],
    ]);
  },

  async headers(api) {
    assert.equal(await api.authorization(), "Bearer of tidings");
  },

  async brokenWhenTheServerHangsUp(api) {
    const counter = await api.makeCounter(1);
    const broken = [];
    api.onRpcBroken((error) => broken.push(error));
    counter.onRpcBroken((error) => broken.push(error));
    await rejects(api.hangUp());
    await eventually(() => broken.length === 2);
    await rejects(counter.increment());
  },

  async abortedByTheServer(api, { socket }) {
    const closed = new Promise((resolve) => socket.once("close", (code) => resolve(code)));
    socket.send('["pull",99]');
    await rejects(api.forever(), /99 is not exported|99, which is not exported/);
    assert.equal(await closed, 3000);
  },
};

// Results have a disposer, which is no part of the value; errors have a stack, which is of this side.
function strip(value) {
  if (value instanceof Error) {
    const { cause, errors, ...properties } = { ...value, cause: value.cause, errors: value.errors };
    return ["error", value.name, value.message, strip(properties), strip(cause), strip(errors)];
  }
  // Node.js has a Uint8Array of its own, called Buffer.
  if (value instanceof Uint8Array) return ["bytes", ...value];
  if (value instanceof ArrayBuffer) return ["buffer", ...new Uint8Array(value)];
  if (ArrayBuffer.isView(value)) return [value.constructor.name, ...new Uint8Array(value.buffer)];
  if (value instanceof URL) return ["url", value.href];
  if (value instanceof Headers) return ["headers", ...value];
  if (value instanceof Request) return ["request", value.url, value.method, value.redirect, ...value.headers];
  if (value instanceof Response) return ["response", value.status, value.statusText, ...value.headers];
  if (Array.isArray(value)) return value.map(strip);
  if (value instanceof Date) return ["date", value.getTime()];
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, strip(item)]));
}

// What the client had sent when the first reply arrived.
function beforeAnyReply(frames) {
  const reply = frames.findIndex(([direction]) => direction === "received");
  return frames.slice(0, reply < 0 ? undefined : reply).map(([, frame]) => JSON.parse(frame));
}

const run = async (name) => {
  const socket = new WebSocket(url, { headers: { Authorization: "Bearer of tidings" } });
  const frames = [];
  const send = socket.send.bind(socket);
  socket.send = (data) => {
    frames.push(["sent", data]);
    send(data);
  };
  socket.on("message", (data) => frames.push(["received", data.toString()]));
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const session = new RpcSession(new WebSocketTransport(socket));
  const api = session.getRemoteMain();
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("took too long")), 5000);
  });
  try {
    await Promise.race([cases[name](api, { session, socket, frames }), late]);
    return null;
  } catch (error) {
    return error.stack;
  } finally {
    clearTimeout(timer);
    socket.terminate();
  }
};

process.on("unhandledRejection", () => {}); // of calls that nobody awaited when the server hung up
const outcomes = await Promise.all(Object.keys(cases).map(async (name) => [name, await run(name)]));
console.log(JSON.stringify(Object.fromEntries(outcomes)));
process.exit(0);
