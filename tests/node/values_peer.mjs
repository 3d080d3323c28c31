// A peer made with npm's capnweb that speaks over its standard streams, a message a line; its main target
// echoes and describes values. With "frames" for an argument it prints, as one JSON object, the messages in
// which it sends each of the values in interop_bodies.mjs.
import { RpcSession, RpcTarget } from "capnweb";
import { createInterface } from "node:readline";
import { bodies } from "./interop_bodies.mjs";

// Sends to whatever `send` does; hears nothing.
const deafTransport = (send) => ({
  async send(message) {
    send(message);
  },
  receive() {
    return new Promise(() => {});
  },
});

const standardStreams = () => {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  return {
    async send(message) {
      process.stdout.write(message + "\n");
    },
    async receive() {
      const { value, done } = await lines.next();
      if (done) throw new Error("the peer has gone");
      return value;
    },
  };
};

class Counter extends RpcTarget {
  #count = 0;

  increment() {
    return ++this.#count;
  }
}

const text = (bytes) => new TextDecoder().decode(bytes);

// What a value is in JavaScript, in values that need no form of their own.
const describe = async (value) => {
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    const numbers = [...value].map((number) => (typeof number === "bigint" ? String(number) : number));
    return { kind: Object.getPrototypeOf(value).constructor.name.replace("Buffer", "Uint8Array"), numbers };
  }
  if (value instanceof ArrayBuffer) return { kind: "ArrayBuffer", text: text(value) };
  if (value instanceof DataView) return { kind: "DataView", text: text(value) };
  if (value instanceof Blob) return { kind: "Blob", type: value.type, text: await value.text() };
  if (value instanceof URL) return { kind: "URL", href: value.href };
  if (value instanceof Headers) return { kind: "Headers", pairs: [...value] };
  if (value instanceof Request) {
    const { method, url, redirect } = value;
    return { kind: "Request", method, url, redirect, headers: [...value.headers], text: await value.text() };
  }
  if (value instanceof Response) {
    const { status, statusText } = value;
    return { kind: "Response", status, statusText, headers: [...value.headers], text: await value.text() };
  }
  if (value instanceof Error) {
    return {
      kind: Object.getPrototypeOf(value).constructor.name,
      message: value.message,
      cause: value.cause === undefined ? null : await describe(value.cause),
      errors: value.errors === undefined ? null : await Promise.all(value.errors.map(describe)),
    };
  }
  return { kind: typeof value };
};

class Peer extends RpcTarget {
  echo(value) {
    return value;
  }

  describe(value) {
    return describe(value);
  }

  // Reads and makes anew what can be read once.
  async remake(value) {
    if (value instanceof Request) {
      const { url, method, headers, redirect } = value;
      const body = value.body && (await value.arrayBuffer());
      return new Request(url, { method, headers, redirect, body });
    }
    if (value instanceof Response) return new Response(value.body && (await value.arrayBuffer()), value);
    return value;
  }

  get(name) {
    return bodies[name]();
  }

  makeCounter() {
    return new Counter();
  }

  // Uses a stub or a promise, several times at once.
  async useCounter(counter) {
    return await Promise.all([counter.increment(), counter.increment()]);
  }

  async fail() {
    throw new AggregateError([new TypeError("first"), new Error("second", { cause: new RangeError("why") })], "both");
  }

  async errorOf(callback) {
    try {
      await callback();
      return null;
    } catch (error) {
      return await describe(error);
    }
  }
}

const framesOf = async (value) => {
  const frames = [];
  const session = new RpcSession(deafTransport((frame) => frames.push(JSON.parse(frame))));
  session.getRemoteMain().take(value).catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 100));
  return frames;
};

if (process.argv[2] === "frames") {
  const entries = Object.entries(bodies).map(async ([name, make]) => [name, await framesOf(make())]);
  console.log(JSON.stringify(Object.fromEntries(await Promise.all(entries))));
} else {
  new RpcSession(standardStreams(), new Peer());
}
