// The plugin's hooks, with an opencode of which only the client is there. tests/opencode runs it in a real one.
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { Server, until } from "../../share-next/test/server.mjs";
import { FileStore } from "../dist/file-store.js";
import plugin from "../dist/index.js";
import { readSettings } from "../dist/settings.js";

describe("settings", () => {
  it("come from the environment", () => {
    const env = { RPCSHARE_URL: "https://share.example/", RPCSHARE_TOKEN: "t", RPCSHARE_AUTO: "1" };
    const expected = { url: "https://share.example", token: "t", auto: true, access: undefined, directory: undefined };
    assert.deepEqual(readSettings({}, env), expected);
  });

  it("come from the options first", () => {
    const settings = readSettings({ url: "http://a", token: "b\n", auto: false }, { RPCSHARE_URL: "http://c", RPCSHARE_AUTO: "1" });
    assert.deepEqual(settings, { url: "http://a", token: "b", auto: false, access: undefined, directory: undefined });
  });

  it("are none where no server is named", () => {
    assert.equal(readSettings({}, {}), undefined);
  });

  it("are refused with what is wrong with them", () => {
    assert.throws(() => readSettings({ url: "share.example" }, {}), /must begin with http/);
    assert.throws(() => readSettings({ url: "http://a", visibility: "public" }, {}), /must be link or private/);
    assert.throws(() => readSettings({ url: "http://a", token: 5 }, {}), /token .* must be a string/);
  });
});

describe("records of shares", () => {
  let directory, store;
  const record = { id: "i", secret: "s", url: "u" };

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), "rpcshare-"));
    store = new FileStore(path.join(directory, "records"), "http://a");
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it("are kept for one server", async () => {
    await store.put("ses_1", record);
    const { id, secret, url } = await store.get("ses_1");
    assert.deepEqual({ id, secret, url }, record);
    assert.equal(await new FileStore(path.join(directory, "records"), "http://b").get("ses_1"), undefined);
    await store.remove("ses_1");
    assert.equal(await store.get("ses_1"), undefined);
  });

  it("are for their owner alone", async () => {
    await store.put("ses_1", record);
    assert.equal(statSync(path.join(directory, "records", "ses_1.json")).mode & 0o777, 0o600);
  });

  it("stay in their directory", async () => {
    await assert.rejects(store.get("../../etc/passwd"), TypeError);
  });

  it("that are damaged are said to be", async () => {
    await store.put("ses_1", record);
    writeFileSync(path.join(directory, "records", "ses_1.json"), "{");
    await assert.rejects(store.get("ses_1"), SyntaxError);
  });
});

describe("the plugin", () => {
  let server, directory, hooks, opencode, id;
  let sessions = 0;

  before(async () => {
    server = await Server.start();
  });
  after(() => server.close());
  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), "rpcshare-"));
    id = `ses_plugin_${process.pid}_${Date.now()}_${++sessions}`;
    opencode = new FakeOpencode(id);
  });
  afterEach(async () => {
    await hooks.dispose?.();
    rmSync(directory, { recursive: true });
  });

  const start = async (options = {}, config = {}) => {
    const input = { client: opencode.client };
    hooks = await plugin(input, { url: server.url, token: server.token, directory, ...options });
    await hooks.config?.(config);
    return config;
  };
  const tell = (type, properties) => hooks.event({ event: { type, properties } });
  const command = async (name) => {
    const output = { parts: [{ type: "text", text: name }] };
    await hooks["command.execute.before"]({ command: name, sessionID: id, arguments: "" }, output);
    return output.parts[0].text.split("\n")[0];
  };
  const shareID = () => id.slice(-8);

  it("does nothing where no server is named", async () => {
    hooks = await plugin({ client: opencode.client }, { url: "" });
    assert.deepEqual(hooks, {});
  });

  it("says what is wrong with its settings, and does nothing", async () => {
    hooks = await plugin({ client: opencode.client }, { url: "nonsense" });
    assert.deepEqual(hooks, {});
    assert.match(opencode.toasts[0], /must begin with http/);
  });

  it("takes the place of opencode's own sharing", async () => {
    const config = await start({}, { share: "manual", command: { mine: { template: "x" } } });
    assert.equal(config.share, "disabled");
    assert.deepEqual(Object.keys(config.command).sort(), ["mine", "share", "share-status", "unshare"]);
  });

  it("shares at a command, and shows the link", async () => {
    await start();
    assert.equal(await command("share"), `This session is shared: ${server.url}/share/${shareID()}`);
    assert.equal((await server.share(shareID())).session.title, "Fake");
    assert.match(opencode.toasts[0], /is shared: http/);
  });

  it("shares for those alone whom its settings name", async () => {
    await start({ visibility: "private", expiresIn: "1h" });
    await command("share");
    const { status } = await fetch(`${server.url}/api/share/${shareID()}`);
    assert.equal(status, 401);
    assert.equal((await server.share(shareID())).session.title, "Fake");
  });

  it("tells how things stand, and takes the share down", async () => {
    await start();
    assert.equal(await command("share-status"), "This session is not shared.");
    await command("share");
    assert.match(await command("share-status"), /is shared, and all of it has arrived: http/);
    assert.equal(await command("unshare"), "This session is no longer shared.");
    assert.equal((await server.share(shareID())).code, "SHARE_NOT_FOUND");
    assert.equal(await command("unshare"), "This session is not shared.");
    assert.deepEqual(readdirSync(directory), []);
  });

  it("tells why a command failed", async () => {
    await start({ token: "wrong" });
    assert.match(await command("share"), /^Sharing failed: Unauthorized/);
  });

  it("leaves other commands alone", async () => {
    await start();
    assert.equal(await command("mine"), "mine");
  });

  it("shares new sessions by itself, if opencode would", async () => {
    await start({}, { share: "auto" });
    await tell("session.created", { info: { id } });
    assert.equal((await server.share(shareID())).session.id, id);
  });

  it("does not share the sessions of subagents by itself", async () => {
    await start({ auto: true });
    await tell("session.created", { info: { id, parentID: "ses_other" } });
    assert.equal((await server.share(shareID())).code, "SHARE_NOT_FOUND");
  });

  it("sends what happens: messages with their model, parts and diffs", async () => {
    await start();
    await command("share");
    const model = { providerID: "acme", modelID: "m" };
    await tell("message.updated", { info: { id: "msg_1", sessionID: id, role: "user", model } });
    await tell("message.part.updated", { part: { id: "prt_1", sessionID: id, text: "hi" } });
    await tell("session.diff", { sessionID: id, diff: [{ file: "a.py" }] });
    await tell("session.updated", { info: { id, title: "Named" } });
    await until(() => opencode.askedForModels, "the model");
    await tell("session.idle", { sessionID: id });
    await hooks.dispose();
    const { session, messages, parts, diffs, models } = await server.share(shareID());
    assert.deepEqual([session.title, messages.length, parts[0].text, diffs[0].file], ["Named", 1, "hi", "a.py"]);
    assert.deepEqual(models, [{ id: "m", providerID: "acme", name: "M" }]);
  });

  it("ends the share with the session", async () => {
    await start();
    await command("share");
    await tell("session.deleted", { info: { id } });
    await until(() => readdirSync(directory).length === 0, "the removal");
    assert.equal((await server.share(shareID())).code, "SHARE_NOT_FOUND");
  });

  it("keeps its credentials out of opencode's log", async () => {
    await start();
    await command("share");
    await server.end("SIGKILL");
    await tell("session.updated", { info: { id, title: "Named" } });
    await until(() => opencode.logged.some(({ level }) => level === "warn"), "the warning");
    await server.restart();
    await hooks.dispose();
    const { secret } = JSON.parse(readFileSync(path.join(directory, `${id}.json`), "utf8"));
    const logged = JSON.stringify([opencode.logged, opencode.toasts]);
    assert.equal(logged.includes(server.token) || logged.includes(secret), false);
    assert.equal((await server.share(shareID())).session.title, "Named");
  });
});

class FakeOpencode {
  toasts = [];
  logged = [];
  askedForModels = false;

  constructor(id) {
    const answer = (data) => Promise.resolve({ data });
    this.client = {
      session: {
        get: () => answer({ id, title: "Fake" }),
        messages: () => answer([]),
        diff: () => answer([]),
      },
      config: {
        providers: () => {
          this.askedForModels = true;
          return answer({ providers: [{ models: { m: { id: "m", providerID: "acme", name: "M" } } }] });
        },
      },
      app: { log: ({ body }) => answer(this.logged.push(body)) },
      tui: { showToast: ({ body }) => answer(this.toasts.push(body.message)) },
    };
  }
}
