// Sharing, with a server that is there.
import assert from "node:assert/strict";
import { after, before, beforeEach, afterEach, describe, it } from "node:test";
import { diff, message, model, newSessionID, part, session, share } from "./host.mjs";
import { Proxy, Server, until } from "./server.mjs";

describe("sharing a session", () => {
  let server, proxy, host, client, id;

  before(async () => {
    server = await Server.start();
    proxy = await Proxy.start(server.port);
  });
  after(async () => {
    await proxy.close();
    await server.close();
  });
  beforeEach(() => {
    ({ host, client } = share(proxy.url, server.token));
    proxy.accepted = 0;
    id = newSessionID();
  });
  afterEach(async () => {
    proxy.blocksWebSockets = false;
    proxy.heal();
    await client.close();
  });

  const held = async (shareID) => {
    const { session, messages, parts, diffs, models } = await server.share(shareID);
    return { session, messages, parts, diffs, models };
  };

  it("opens no connection before one is needed", async () => {
    host.change(id, message("m1", "not shared"));
    assert.equal(await client.flush(), true);
    assert.equal(proxy.accepted, 0);
  });

  it("begins with all that is in it", async () => {
    host.change(id, session(id, "Fix"), message("m1", "a"), part("p1", "m1", "b"), model("x"), diff("a.py", "b.py"));
    const made = await client.create(id);
    await client.flush();
    assert.deepEqual(await held(made.id), host.expected(id));
    assert.equal(made.url, `${server.url}/share/${made.id}`);
    assert.deepEqual(host.records.get(id), made);
  });

  it("creates and syncs in one round trip", async () => {
    await client.create(newSessionID()); // connects
    host.change(id, message("m1", "a"));
    proxy.losesAnswers = true;
    const creating = client.create(id);
    creating.catch(() => undefined); // it fails at the end of the test
    await until(async () => (await server.metadata(id.slice(-8))).messageCount === 1, "both calls at the server");
    assert.equal((await server.metadata(id.slice(-8))).syncCount, 1);
    proxy.heal();
    proxy.cut();
    await creating;
  });

  it("is the same share when it is asked for again", async () => {
    const [first, second] = await Promise.all([client.create(id), client.create(id)]);
    assert.deepEqual(first, second);
    assert.deepEqual(await client.create(id), first);
    assert.deepEqual(await client.get(id), first);
    assert.equal((await server.metadata(first.id)).syncCount, 1);
  });

  it("gathers changes: the newest of each item, and every diff", async () => {
    const made = await client.create(id);
    for (const text of ["H", "He", "Hello"]) host.change(id, part("p1", "m1", text), diff(`${text}.py`));
    host.change(id, message("m1", "late"), session(id, "Named"));
    await client.flush();
    assert.deepEqual(await held(made.id), host.expected(id));
    assert.equal((await server.metadata(made.id)).syncCount, 2);
  });

  it("copies what it is told of", async () => {
    const made = await client.create(id);
    const changing = part("p1", "m1", "as it was");
    host.listener.changed(id, [changing]);
    changing.data.text = "as it is";
    await client.flush();
    assert.equal((await held(made.id)).parts[0].text, "as it was");
  });

  it("sends changes by itself, after a while", async () => {
    const made = await client.create(id);
    host.change(id, message("m1", "a"));
    await until(async () => (await server.metadata(made.id)).messageCount === 1, "the message");
  });

  it("has one connection for all shares", async () => {
    const ids = Array.from({ length: 8 }, newSessionID);
    await Promise.all(ids.map((each) => client.create(each)));
    for (const each of ids) host.change(each, message("m1", each));
    await client.flush();
    assert.equal(proxy.accepted, 1);
  });

  it("goes on in another process", async () => {
    const made = await client.create(id);
    const next = share(server.url, server.token);
    next.host.records = host.records;
    next.host.change(id, message("m1", "from the next process"));
    await next.client.close();
    assert.deepEqual((await held(made.id)).messages, [{ id: "m1", text: "from the next process" }]);
  });

  it("ends when it is taken down", async () => {
    const made = await client.create(id);
    assert.equal(await client.remove(id), true);
    assert.equal((await server.share(made.id)).code, "SHARE_NOT_FOUND");
    assert.equal(host.records.size, 0);
    host.change(id, message("m1", "private again"));
    assert.equal(await client.flush(), true);
    assert.equal(await client.remove(id), false);
    assert.deepEqual(host.warnings(), []);
  });

  it("ends with the session", async () => {
    const made = await client.create(id);
    host.delete(id);
    await until(() => host.records.size === 0, "the removal");
    assert.equal((await server.share(made.id)).code, "SHARE_NOT_FOUND");
  });

  it("can be begun anew", async () => {
    host.change(id, message("m1", "a"));
    await client.create(id);
    await client.remove(id);
    const made = await client.create(id);
    assert.equal((await held(made.id)).messages.length, 1);
  });

  it("stops when the share is removed on the server, and says so", async () => {
    const made = await client.create(id);
    await fetch(`${server.url}/api/share/${made.id}`, {
      method: "DELETE",
      body: JSON.stringify({ secret: made.secret }),
    });
    host.change(id, message("m1", "a"));
    await client.flush();
    assert.deepEqual(host.warnings(), [
      "the share of a session has been removed on the server; the session is no longer shared",
    ]);
    assert.equal(await client.get(id), undefined);
    assert.equal((await server.share(made.id)).code, "SHARE_NOT_FOUND");
  });

  it("recovers when its record is lost", async () => {
    host.change(id, message("m1", "a"), diff("a.py"));
    const made = await client.create(id);
    await client.flush();
    const next = share(server.url, server.token);
    next.host.change(id, message("m1", "a"), message("m2", "b"), diff("a.py"));
    assert.deepEqual(await next.client.create(id), made);
    await next.client.close();
    assert.deepEqual(await held(made.id), next.host.expected(id));
  });

  it("recovers when its secret is wrong", async () => {
    const made = await client.create(id);
    const next = share(server.url, server.token);
    next.host.records.set(id, { ...made, secret: "00000000-0000-4000-8000-000000000000" });
    next.host.change(id, message("m1", "a"));
    assert.equal(await next.client.close(), true);
    assert.equal((await held(made.id)).messages.length, 1);
    assert.deepEqual(next.host.records.get(id), made);
  });

  it("sends again what a process could not send", async () => {
    const made = await client.create(id);
    const next = share(server.url, server.token);
    next.host.records.set(id, { ...made, behind: true });
    next.host.change(id, message("m1", "from before"), diff("a.py"));
    await next.client.get(id);
    assert.equal(await next.client.flush(), true);
    await until(() => next.host.records.get(id).behind === undefined, "the mark to go");
    await next.client.close();
    const expected = next.host.expected(id);
    assert.deepEqual((await held(made.id)).messages, expected.messages);
    assert.equal((await server.metadata(made.id)).diffCount >= 1, true);
  });

  it("does not forget what is behind when the host cannot tell of it at first", async () => {
    const made = await client.create(id);
    const next = share(server.url, server.token);
    next.host.records.set(id, { ...made, behind: true });
    const { session: ask } = next.host.sessions;
    next.host.sessions.session = async () => Promise.reject(new Error("not now"));
    await assert.rejects(next.client.get(id), /not now/);
    assert.equal(next.host.records.get(id).behind, true);
    next.host.sessions.session = ask;
    next.host.change(id, message("m1", "from before"));
    await next.client.close();
    assert.equal((await held(made.id)).session.id, id);
    assert.equal((await held(made.id)).messages.length, 1);
  });

  it("leaves out what the server refuses, and says so", async () => {
    const made = await client.create(id);
    let deep = "bottom";
    for (let depth = 0; depth < 220; depth++) deep = [deep];
    host.change(id, message("m1", "a"), { type: "message", data: { id: "m2", deep } }, message("m3", "c"));
    await client.flush();
    assert.deepEqual((await held(made.id)).messages.map((each) => each.id), ["m1", "m3"]);
    assert.deepEqual(host.warnings(), ["part of a session cannot be shared"]);
  });

  it("leaves out what is too large for a message, and says so", async () => {
    const { host, client } = share(server.url, server.token, { itemSize: 10_000, batchSize: 5_000 });
    const made = await client.create(id);
    const texts = Array.from({ length: 10 }, (_, index) => message(`m${index}`, "x".repeat(3_000)));
    host.change(id, message("huge", "x".repeat(20_000)), ...texts);
    await client.close();
    assert.equal((await held(made.id)).messages.length, 10);
    assert.equal((await server.metadata(made.id)).syncCount > 5, true);
    assert.deepEqual(host.warnings(), ["part of a session cannot be shared"]);
  });

  it("tells of items that are none", async () => {
    await client.create(id);
    host.change(id, { type: "message", data: { text: "who am I?" } });
    assert.deepEqual(host.logged.at(-1).details.error, "a message has no id");
  });

  it("uses HTTP where WebSockets are blocked", async () => {
    proxy.blocksWebSockets = true;
    host.change(id, message("m1", "a"), diff("a.py"));
    const made = await client.create(id);
    const tried = proxy.upgrades;
    host.change(id, message("m2", "b"), diff("b.py"));
    await client.flush();
    assert.deepEqual(await held(made.id), host.expected(id));
    assert.equal(proxy.upgrades, tried);
    assert.equal(await client.remove(id), true);
    assert.deepEqual(host.warnings(), []);
  });

  it("fails to begin with a token that is refused, and says why", async () => {
    const refused = share(server.url, "not-the-token");
    await assert.rejects(refused.client.create(id), { code: "UNAUTHORIZED" });
    assert.equal(refused.host.warnings().length, 1);
    assert.equal(JSON.stringify(refused.host.logged).includes("not-the-token"), false);
    await refused.client.close();
  });

  it("begins once the token is right, if it is to keep trying", async () => {
    const late = share(server.url, "not-the-token");
    const creating = late.client.create(id, { keepTrying: true });
    await until(() => late.host.warnings().length === 1, "the warning");
    late.host.config = () => ({ url: server.url, token: server.token });
    assert.equal((await creating).id, id.slice(-8));
    await late.client.close();
  });
});

describe("sharing a session again", () => {
  let server, host, client, id;

  before(async () => (server = await Server.start()));
  after(() => server.close());
  beforeEach(() => {
    ({ host, client } = share(server.url, server.token));
    id = newSessionID();
    for (let n = 0; n < 7; n++) host.change(id, message(`m${n}`, `${n}`), part(`p${n}`, `m${n}`, "so far"));
    host.change(id, diff("a.py"), model("large"));
  });
  afterEach(() => client.close());

  const held = async (shareID) => {
    const { metadata, ...rest } = await server.share(shareID);
    return { ...rest, syncCount: metadata.syncCount };
  };

  /** The next process, which has what the one before it had on disk: not what that had not sent. */
  const next = (records = host.records) => {
    const process = share(server.url, server.token);
    for (const each of records) process.host.records.set(...each);
    const { listener } = process.host;
    process.host.listener = undefined; // of what was on disk nothing is told
    for (let n = 0; n < 9; n++) process.host.change(id, message(`m${n}`, `${n}`), part(`p${n}`, `m${n}`, "to the end"));
    process.host.change(id, diff("a.py"), model("large"));
    process.host.listener = listener;
    return process;
  };

  it("completes what a process that was killed has not sent", async () => {
    const made = await client.create(id);
    await client.flush();
    const process = next();
    assert.deepEqual(await process.client.create(id), made);
    const { syncCount, ...found } = await held(made.id); // with nothing flushed
    assert.deepEqual(found, process.host.expected(id));
    await process.client.close();
  });

  it("sends nothing where nothing is missing", async () => {
    const made = await client.create(id);
    await client.flush();
    const before = await held(made.id);
    assert.deepEqual(await client.create(id), made);
    assert.deepEqual(await held(made.id), before);
  });

  it("puts back a record that is lost in the process that made the share", async () => {
    const made = await client.create(id);
    host.records.delete(id);
    assert.deepEqual(await client.create(id), made);
    assert.deepEqual(host.records.get(id), made);
  });

  it("makes a share anew that has been removed on the server", async () => {
    const made = await client.create(id);
    await client.flush();
    await fetch(`${server.url}/api/share/${made.id}`, { method: "DELETE", body: JSON.stringify({ secret: made.secret }) });
    assert.deepEqual(await client.create(id), made);
    assert.equal((await held(made.id)).messages.length, 7);
    assert.deepEqual(host.warnings(), []);
  });

  it("changes who may read it", async () => {
    const made = await client.create(id);
    await client.create(id, { access: { visibility: "private" } });
    assert.equal((await fetch(`${server.url}/api/share/${made.id}`)).status, 401);
  });

  it("returns what is there while the server is away, and sends the rest later", async () => {
    const made = await client.create(id);
    await client.flush();
    await server.end("SIGKILL");
    const process = next();
    assert.deepEqual(await process.client.create(id), made);
    assert.match(process.host.warnings()[0], /sent later/);
    await server.restart();
    assert.equal(await process.client.flush(20_000), true);
    assert.equal((await held(made.id)).messages.length, 9);
    await process.client.close();
  });

  it("that fails promises nothing", async () => {
    const away = share("http://127.0.0.1:9", "token", { connectTimeout: 500 });
    await assert.rejects(away.client.create(id), { name: "Unreachable" });
    assert.equal(away.host.warnings().length, 1);
    assert.doesNotMatch(away.host.warnings()[0], /later/);
    await away.client.close();
  });
});
