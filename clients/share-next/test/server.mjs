// A real server in a process of its own, and a proxy in front of it whose connections a test cuts.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const COMMAND =
  process.env.RPCSHARE_TEST_COMMAND ?? fileURLToPath(new URL("../../../.venv/bin/rpcshare", import.meta.url));

/** `rpcshare serve` on a free port of the loopback. */
export class Server {
  static async start() {
    const server = new Server();
    server.directory = mkdtempSync(path.join(tmpdir(), "rpcshare-"));
    await server.#run(0);
    server.port = Number(new URL(server.url).port);
    server.token = readFileSync(path.join(server.directory, "admin-token"), "utf8").trim();
    return server;
  }

  async #run(port) {
    const options = ["serve", "--port", `${port}`, "--data-dir", this.directory];
    this.process = spawn(COMMAND, options, { stdio: ["ignore", "pipe", "ignore"] });
    this.url = await new Promise((resolve, reject) => {
      let output = "";
      this.process.stdout.on("data", (chunk) => {
        output += chunk;
        const ready = /listening on (\S+)/.exec(output);
        if (ready !== null) resolve(ready[1]);
      });
      this.process.once("exit", () => reject(new Error(`the server did not start: ${output}`)));
    });
  }

  async end(signal) {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const ended = once(this.process, "exit");
    this.process.kill(signal);
    await ended;
  }

  async restart() {
    await this.#run(this.port);
  }

  async close() {
    await this.end("SIGKILL");
    rmSync(this.directory, { recursive: true });
  }

  async get(path) {
    const response = await fetch(this.url + path, { headers: { Authorization: `Bearer ${this.token}` } });
    return await response.json();
  }

  share(id) {
    return this.get(`/api/share/${id}`);
  }

  metadata(id) {
    return this.get(`/api/share/${id}/metadata`);
  }
}

/** Forwards bytes both ways, unless told otherwise. */
export class Proxy {
  accepted = 0;
  upgrades = 0;
  refuses = false;
  losesRequests = false;
  losesAnswers = false;
  blocksWebSockets = false;
  #links = new Set();

  static async start(port) {
    const proxy = new Proxy();
    proxy.listener = net.createServer((socket) => proxy.#link(socket, port));
    proxy.listener.listen(0, "127.0.0.1");
    await once(proxy.listener, "listening");
    proxy.url = `http://127.0.0.1:${proxy.listener.address().port}`;
    return proxy;
  }

  /** Ends every connection that there is, without a word of WebSocket. */
  cut() {
    for (const socket of this.#links) socket.destroy();
  }

  /** Lets everything get lost, with no end of any connection. */
  stall() {
    this.losesRequests = this.losesAnswers = true;
  }

  heal() {
    this.refuses = this.losesRequests = this.losesAnswers = false;
  }

  async close() {
    this.cut();
    this.listener.close();
    await once(this.listener, "close");
  }

  #link(client, port) {
    if (this.refuses) {
      client.destroy();
      return;
    }
    this.accepted++;
    const server = net.connect(port, "127.0.0.1");
    for (const socket of [client, server]) {
      this.#links.add(socket);
      socket.on("error", () => undefined); // the end of a connection, which `close` tells too
      socket.on("close", () => {
        this.#links.delete(socket);
        client.destroy();
        server.destroy();
      });
    }
    client.on("data", (data) => {
      const isUpgrade = /\r\nupgrade: *websocket\r\n/i.test(data.toString("latin1"));
      if (isUpgrade) this.upgrades++;
      if (isUpgrade && this.blocksWebSockets) {
        client.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      } else if (!this.losesRequests) {
        server.write(data);
      }
    });
    server.on("data", (data) => {
      if (!this.losesAnswers) client.write(data);
    });
  }
}

/** Waits until `condition` holds. */
export async function until(condition, what = condition) {
  const end = Date.now() + 20_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`in vain waited for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
}
