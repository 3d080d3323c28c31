// A fork of opencode that does as it is told, line by line, on standard input. Each line is a JSON list, and is
// answered by a line of JSON.
//
//     bun fork.ts http|websocket|ours
import { createInterface } from "node:readline";
import { Bus } from "@/bus";
import { Instance } from "@/project/instance";
import { rows, save, Session } from "@/session";
import { MessageV2 } from "@/session/message-v2";
import { OverHttp, OverWebSocket } from "@/share/older-client";
import { ShareNext } from "@/share/share-next";
import { SessionShareTable } from "@/share/share.sql";
import { Database, eq } from "@/storage/db";

const Share = { http: OverHttp, websocket: OverWebSocket, ours: ShareNext }[process.argv[2]!]!;

// As opencode does: what nobody catches is logged, and the program goes on.
process.on("unhandledRejection", (error) => console.error(JSON.stringify({ level: "error", message: `${error}` })));

const message = (sessionID: string, n: number): MessageV2.Info => {
  const base = { id: `msg_${sessionID}_${n}`, sessionID, time: { created: 1_700_000_000_000 + n } };
  const model = { providerID: "acme", modelID: "large" };
  return n % 2 === 0 ? { ...base, role: "user", model } : { ...base, role: "assistant", ...model, cost: 0.25 };
};
const part = (sessionID: string, n: number, text: string): MessageV2.Part => {
  return { id: `prt_${sessionID}_${n}`, messageID: `msg_${sessionID}_${n}`, sessionID, type: "text", text };
};

const commands: Record<string, (sessionID: string, ...rest: never[]) => unknown> = {
  /** A session with some messages is there, of which nobody is told. */
  there(sessionID, count: number, text = "said before") {
    const time = { created: 1, updated: 2 };
    const info = { id: sessionID, slug: "s", projectID: "p", directory: "/src", title: "A session", version: "1", time };
    save(sessionID, "session", sessionID, info);
    for (let n = 0; n < count; n++) {
      save(sessionID, "message", `msg_${sessionID}_${n}`, message(sessionID, n));
      save(sessionID, "part", `prt_${sessionID}_${n}`, part(sessionID, n, text));
    }
    return null;
  },
  /** A message is added, and its part grows. */
  async say(sessionID, n: number) {
    save(sessionID, "message", `msg_${sessionID}_${n}`, message(sessionID, n));
    await Bus.publish(MessageV2.Event.Updated, { info: message(sessionID, n) });
    for (const text of ["He", "Hello", `Hello ${n}`]) {
      const grown = part(sessionID, n, text);
      save(sessionID, "part", grown.id, grown);
      await Bus.publish(MessageV2.Event.PartUpdated, { part: grown });
    }
    return null;
  },
  async edit(sessionID, file: string) {
    const diff = { file, before: "", after: "x\n", additions: 1, deletions: 0 };
    save(sessionID, "diff", `diff_${sessionID}_${file}`, diff);
    await Bus.publish(Session.Event.Diff, { sessionID, diff: [diff] });
    return null;
  },
  create: (sessionID) => Share.create(sessionID),
  remove: (sessionID) => Share.remove(sessionID),
  row: (sessionID) => {
    const table = SessionShareTable;
    const row = Database.use((db) => db.select().from(table).where(eq(table.session_id, sessionID)).get());
    return row === undefined ? null : { id: row.id, secret: row.secret, url: row.url };
  },
  putRow(sessionID, row: { id: string; secret: string; url: string }) {
    Database.use((db) => db.insert(SessionShareTable).values({ session_id: sessionID, ...row }).run());
  },
  loseRow(sessionID) {
    Database.use((db) => db.delete(SessionShareTable).where(eq(SessionShareTable.session_id, sessionID)).run());
  },
  /** What a share of the session should hold. */
  held: (sessionID) => ({
    session: rows(sessionID, "session")[0],
    messages: rows(sessionID, "message"),
    parts: rows(sessionID, "part"),
    diffs: rows(sessionID, "diff"),
  }),
  /** What opencode does before it exits. */
  async exit() {
    await Instance.dispose();
    process.exit();
  },
};

await Instance.provide({
  directory: "/src",
  fn: async () => {
    await Share.init();
    console.log(JSON.stringify("ready"));
    for await (const line of createInterface({ input: process.stdin })) {
      const [name, ...rest] = JSON.parse(line) as [string, string, ...never[]];
      try {
        console.log(JSON.stringify({ result: (await commands[name]!(...rest)) ?? null }));
      } catch (error) {
        console.log(JSON.stringify({ error: error instanceof Error ? error.message : String(error) }));
      }
    }
  },
});
process.exit();
