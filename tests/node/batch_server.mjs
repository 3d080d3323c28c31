// A server of HTTP batches made with npm's capnweb: node batch_server.mjs
// Prints its port when it is ready.
import { createServer } from "node:http";
import { RpcTarget, nodeHttpBatchRpcResponse } from "capnweb";

let requests = 0;

class Counter extends RpcTarget {
  #value;

  constructor(value) {
    super();
    this.#value = value;
  }

  increment(n = 1) {
    return (this.#value += n);
  }
}

class Main extends RpcTarget {
  requests() {
    return requests;
  }

  square(i) {
    return i * i;
  }

  makeCounter(value) {
    return new Counter(value);
  }

  async echo(value) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    return value;
  }

  list(n) {
    return Array.from({ length: n }, (_, i) => i);
  }

  fail() {
    throw Object.assign(new RangeError("too far"), { code: "TOO_FAR" });
  }

  tell(callback) {
    callback("told");
  }
}

const server = createServer((request, response) => {
  requests++;
  if (request.url === "/rpc") {
    nodeHttpBatchRpcResponse(request, response, new Main()).catch(() => response.writeHead(500).end());
  } else {
    response.writeHead(404).end();
  }
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
