// npm's capnweb as a client that sends and gets streams: node streams_client.mjs URL SCENARIO
// Prints one JSON object: what the scenario returned.
import { newWebSocketRpcSession } from "capnweb";
import WebSocket from "ws";

globalThis.WebSocket = WebSocket; // capnweb expects it there; Node has one of its own from 22 on
const [url, scenario] = process.argv.slice(2);
const chunk = "x".repeat(16 * 1024);

const counted = (values) => {
  const iterator = values[Symbol.iterator]();
  const source = { taken: 0, cancelled: null };
  source.stream = new ReadableStream(
    {
      pull(controller) {
        const { value, done } = iterator.next();
        if (done) return controller.close();
        source.taken++;
        controller.enqueue(value);
      },
      cancel(reason) {
        source.cancelled = reason.message;
      },
    },
    { highWaterMark: 0 },
  );
  return source;
};

const failure = async (promise) => {
  try {
    await promise;
    return null;
  } catch (error) {
    return { name: error.name, message: error.message, code: error.code };
  }
};

const read = async (stream) => {
  const values = [];
  for await (const value of stream) values.push(value);
  return values;
};

const scenarios = {
  async writesToASlowReader(api) {
    const source = counted(Array(100).fill(chunk));
    const consumed = api.consume(source.stream);
    const unread = await api.unreadWhenItStops();
    const taken = source.taken;
    await api.goOn();
    return { unread, taken, read: await consumed };
  },

  async readsSlowly(api) {
    const reader = (await api.produce(100)).getReader();
    await reader.read();
    const taken = await api.takenWhenItStops();
    let read = 1;
    while (!(await reader.read()).done) read++;
    return { taken, read };
  },

  async sendsEveryKindOfChunk(api) {
    const chunks = [1, "two", [3], { four: null }, new Uint8Array([5]), undefined, 6n, new Date(7)];
    const echoed = await api.echo(counted(chunks).stream);
    const back = await read(echoed);
    return { same: back.length === chunks.length, bytes: [...back[4]], types: back.map((value) => typeof value) };
  },

  async sendsStubsInChunks(api) {
    const called = [];
    const result = await api.callEach(counted([(value) => called.push(value), (value) => called.push(-value)]).stream);
    return { called, result };
  },

  async isWrittenTo(api) {
    const log = [];
    const sink = new WritableStream({
      write: (value) => void log.push(value),
      close: () => void log.push("closed"),
      abort: (reason) => void log.push(`aborted: ${reason.message}`),
    });
    await api.fill(sink, 3);
    const broken = new WritableStream({ abort: (reason) => void log.push(`aborted: ${reason.message}`) });
    const failed = await failure(api.fillAndFail(broken));
    return { log, failed };
  },

  async refusesAWrite(api) {
    const sink = new WritableStream({
      write() {
        throw new RangeError("full");
      },
    });
    return await failure(api.fill(sink, 3));
  },

  async writes(api) {
    const writer = (await api.sink()).getWriter();
    for (const value of [1, 2, 3]) await writer.write(value);
    await writer.close();
    return await api.collected();
  },

  async readsWhatFails(api) {
    return await failure(read(await api.failing()));
  },

  async sendsWhatFails(api) {
    const stream = new ReadableStream({
      pull(controller) {
        controller.error(new RangeError("torn"));
      },
    });
    return await failure(api.echoAll(stream));
  },

  async cancels(api) {
    const reader = (await api.produce(1000)).getReader();
    await reader.read();
    await reader.cancel(new Error("enough"));
    return await api.closed();
  },

  async isCancelled(api) {
    const source = counted(Array(1000).fill(chunk));
    await api.first(source.stream);
    for (let i = 0; i < 100 && source.cancelled === null; i++) await new Promise((done) => setTimeout(done, 10));
    return source.cancelled;
  },

  async maps(api) {
    const callback = (value) => value * 2;
    return await Promise.all([
      api.list().map((x) => ({ id: x.id, twice: api.twice(x.id) })),
      api.list().map((x) => x.items.map((item) => api.pair(x.id, item))),
      api.list().map((x) => x.counter.increment(x.id)),
      api.list().items.map((x) => x),
      api.call(callback, 4),
    ]);
  },
};

const api = newWebSocketRpcSession(url);
try {
  console.log(JSON.stringify({ returned: await scenarios[scenario](api) }));
} finally {
  api[Symbol.dispose]();
}
