// How the fork's own sharing behaves, over HTTP and over one WebSocket: see docs/moving.md.
import { newWebSocketRpcSession } from "capnweb";
import { Bus } from "@/bus";
import { Config } from "@/config/config";
import { Provider } from "@/provider/provider";
import { Session } from "@/session";
import { MessageV2 } from "@/session/message-v2";
import { Database, eq } from "@/storage/db";
import { SessionShareTable } from "./share.sql";

type Item = { type: "session" | "message" | "part" | "session_diff" | "model"; data: unknown };
type Credentials = { id: string; url: string; secret: string };

interface Transport {
  create(sessionID: string, snapshot: Item[]): Promise<Credentials>;
  sync(share: Credentials, items: Item[]): Promise<unknown>;
  remove(share: Credentials): Promise<unknown>;
}

const GATHER = 1_000;

export function olderClient(open: () => Promise<Transport>) {
  const disabled = ["true", "1"].includes(process.env["OPENCODE_DISABLE_SHARE"] ?? "");
  let transport: Promise<Transport> | undefined;
  const connected = () => (transport ??= open());
  const waiting = new Map<string, Map<string, Item>>();

  const rowOf = (sessionID: string) =>
    Database.use((db) => db.select().from(SessionShareTable).where(eq(SessionShareTable.session_id, sessionID)).get());

  function gather(sessionID: string, key: string, item: Item) {
    const items = waiting.get(sessionID);
    if (items !== undefined) return void items.set(key, item);
    waiting.set(sessionID, new Map([[key, item]]));
    setTimeout(async () => {
      const gathered = [...(waiting.get(sessionID)?.values() ?? [])];
      waiting.delete(sessionID);
      const share = rowOf(sessionID);
      if (share !== undefined) await (await connected()).sync(share, gathered);
    }, GATHER);
  }

  async function snapshot(sessionID: string): Promise<Item[]> {
    const messages = await Array.fromAsync(MessageV2.stream(sessionID));
    const models = messages.flatMap(({ info }) => (info.role === "user" ? [info.model] : []));
    return [
      { type: "session", data: await Session.get(sessionID) },
      ...messages.map(({ info }): Item => ({ type: "message", data: info })),
      ...messages.flatMap(({ parts }) => parts.map((part): Item => ({ type: "part", data: part }))),
      { type: "session_diff", data: await Session.diff(sessionID) },
      { type: "model", data: await Promise.all(models.map((each) => Provider.getModel(each.providerID, each.modelID))) },
    ];
  }

  return {
    async init() {
      if (disabled) return;
      Bus.subscribe(Session.Event.Updated, ({ properties: { info } }) => {
        gather(info.id, "session", { type: "session", data: info });
      });
      Bus.subscribe(MessageV2.Event.Updated, ({ properties: { info } }) => {
        gather(info.sessionID, `message ${info.id}`, { type: "message", data: info });
      });
      Bus.subscribe(MessageV2.Event.PartUpdated, ({ properties: { part } }) => {
        gather(part.sessionID, `part ${part.id}`, { type: "part", data: part });
      });
      Bus.subscribe(Session.Event.Diff, ({ properties: { sessionID, diff } }) => {
        gather(sessionID, `diff ${Date.now()}`, { type: "session_diff", data: diff });
      });
    },
    async create(sessionID: string): Promise<Credentials> {
      if (disabled) return { id: "", url: "", secret: "" };
      const { id, url, secret } = await (await connected()).create(sessionID, await snapshot(sessionID));
      Database.use((db) =>
        db
          .insert(SessionShareTable)
          .values({ session_id: sessionID, id, secret, url })
          .onConflictDoUpdate({ target: SessionShareTable.session_id, set: { id, secret, url } })
          .run(),
      );
      return { id, url, secret };
    },
    async remove(sessionID: string): Promise<void> {
      const share = disabled ? undefined : rowOf(sessionID);
      if (share === undefined) return;
      await (await connected()).remove(share);
      Database.use((db) => db.delete(SessionShareTable).where(eq(SessionShareTable.session_id, sessionID)).run());
    },
  };
}

/** Answers are not looked at, but for that of create. */
async function http(): Promise<Transport> {
  const url = (await Config.get()).enterprise?.url;
  const send = (method: string, path: string, body: object) =>
    fetch(`${url}/api/share${path}`, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  const sync = ({ id, secret }: Credentials, data: Item[]) => send("POST", `/${id}/sync`, { secret, data });
  return {
    async create(sessionID, snapshot) {
      const made = (await (await send("POST", "", { sessionID })).json()) as Credentials;
      await sync(made, snapshot);
      return made;
    },
    sync,
    remove: ({ id, secret }) => send("DELETE", `/${id}`, { secret }),
  };
}

/** One connection for as long as the process lives. */
async function webSocket(): Promise<Transport> {
  const url = (await Config.get()).enterprise?.url;
  const headers = { "x-opencode-share-key": process.env["OPENCODE_SHARE_RPC_KEY"] };
  const Native = WebSocket as unknown as new (url: string, options: object) => WebSocket;
  const session = newWebSocketRpcSession(new Native(`${url}/rpc/share`.replace("http", "ws"), { headers }));
  // What is called is the server's; of the types that capnweb makes of it nothing is needed here.
  const api = session as unknown as {
    createShare(sessionID: string, snapshot: Item[]): Promise<Credentials>;
    syncShare(id: string, secret: string, items: Item[]): Promise<unknown>;
    deleteShare(id: string, secret: string): Promise<unknown>;
  };
  return {
    create: async (sessionID, snapshot) => await api.createShare(sessionID, snapshot),
    sync: async ({ id, secret }, items) => await api.syncShare(id, secret, items),
    remove: async ({ id, secret }) => await api.deleteShare(id, secret),
  };
}

export const OverHttp = olderClient(http);
export const OverWebSocket = olderClient(webSocket);
