// Sharing, with a server that comes and goes: nothing is lost, and nothing is there twice.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { diff, message, newSessionID, part, share } from "./host.mjs";
import { Proxy, Server, until } from "./server.mjs";

describe("while the server comes and goes", () => {
  let server, proxy, host, client, id, made;

  before(async () => {
    server = await Server.start();
    proxy = await Proxy.start(server.port);
  });
  after(async () => {
    await proxy.close();
    await server.close();
  });
  beforeEach(async () => {
    ({ host, client } = share(proxy.url, server.token, { callTimeout: 1000, connectTimeout: 1000 }));
    id = newSessionID();
    host.change(id, message("m0", "first"));
    made = await client.create(id);
  });
  afterEach(async () => {
    proxy.heal();
    await client.close();
  });

  const check = async () => {
    assert.equal(await client.flush(20_000), true);
    const { metadata, ...held } = await server.share(made.id);
    assert.deepEqual(held, host.expected(id));
    assert.equal(metadata.sessionID, id);
  };

  it("sends again what was cut off on its way", async () => {
    proxy.losesRequests = true;
    host.change(id, message("m1", "a"), diff("a.py"));
    const flushing = client.flush();
    await until(() => host.warnings().length === 1, "the warning");
    proxy.heal();
    await flushing;
    await check();
  });

  it("does not send diffs twice whose acknowledgement was lost", async () => {
    proxy.losesAnswers = true;
    host.change(id, message("m1", "a"), diff("a.py", "b.py"));
    const flushing = client.flush();
    await until(async () => (await server.metadata(made.id)).diffCount === 2, "the sync");
    proxy.heal();
    proxy.cut();
    await flushing;
    await check();
  });

  it("sends diffs again that did not arrive, though others have synced since", async () => {
    proxy.losesRequests = true;
    host.change(id, diff("a.py"));
    const flushing = client.flush();
    await until(() => host.warnings().length === 1, "the warning");
    const other = JSON.stringify({ secret: made.secret, data: [{ type: "session_diff", data: [{ file: "other.py" }] }] });
    await fetch(`${server.url}/api/share/${made.id}/sync`, { method: "POST", body: other });
    proxy.heal();
    await flushing;
    const { diffs } = await server.share(made.id);
    assert.deepEqual(diffs.map(({ file }) => file), ["other.py", "a.py"]);
  });

  it("survives that the server is killed, and started again", async () => {
    for (let round = 0; round < 3; round++) {
      host.change(id, message(`m${round}`, `round ${round}`), diff(`${round}.py`));
      await server.end("SIGKILL");
      host.change(id, part(`p${round}`, `m${round}`, "while it was down"));
      await server.restart();
      host.change(id, diff(`${round}-later.py`));
      await check();
    }
  });

  it("survives that the server is stopped, and started again", async () => {
    await server.end("SIGTERM");
    host.change(id, message("m1", "while it was down"), diff("a.py"));
    await until(() => host.warnings().length === 1, "the warning");
    await server.restart();
    await check();
  });

  it("survives that nothing gets through for a while, and warns once", async () => {
    proxy.stall();
    const end = Date.now() + Number(process.env.RPCSHARE_TEST_OUTAGE ?? 3_000);
    for (let n = 0; Date.now() < end; n++) {
      host.change(id, message(`m${n}`, `${n}`), part("p1", "m0", `so far ${n}`), diff(`${n}.py`));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    proxy.heal();
    await check();
    assert.equal(host.warnings().length, 1);
    assert.equal(host.logged.at(-1).message, "the share server answers again");
  });

  it("gives up a flush in time, and marks what is behind", async () => {
    proxy.refuses = true;
    proxy.cut();
    host.change(id, message("m1", "a"));
    const began = Date.now();
    assert.equal(await client.flush(300), false);
    assert.equal(Date.now() - began < 3000, true);
    assert.equal(host.records.get(id).behind, true);
    proxy.heal();
    await check();
    await until(() => host.records.get(id).behind === undefined, "the mark to go");
  });

  it("fails to begin when the server cannot be reached", async () => {
    proxy.refuses = true;
    proxy.cut();
    await assert.rejects(client.create(newSessionID()), { name: "Unreachable" });
  });

  it("ends up right, however often it is cut off: recorded sessions", async () => {
    const recorded = readFileSync(new URL("../../../tests/fixtures/opencode-share-traffic.jsonl", import.meta.url), "utf8");
    const syncs = recorded
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
      .filter(({ path }) => path.endsWith("/sync"));
    let random = 1;
    for (const { body } of syncs) {
      for (const item of body.data) host.change(id, item);
      random = (random * 48271) % 2147483647;
      if (random % 3 === 0) proxy.cut();
      if (random % 3 === 1) {
        proxy.losesAnswers = true;
        await new Promise((resolve) => setTimeout(resolve, 60));
        proxy.cut();
        proxy.heal();
      }
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
    await check();
  });
});
