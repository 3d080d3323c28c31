// Sharing for a fork of opencode: its packages/opencode/src/share/share-next.ts, whole.
//
// The imports of "@/…" are opencode's own, of a version with a Bus and drizzle. What calls this module stays as it is.
// The key comes from RPCSHARE_TOKEN, or from OPENCODE_SHARE_RPC_KEY; or the URL has it: https://HOST/k/KEY.

import { chosenModel, ShareNext as Client, tell, type Host, type OpencodeEvent } from "@rpcshare/share-next";
import { Bus } from "@/bus";
import { Config } from "@/config/config";
import { Instance } from "@/project/instance";
import { Provider } from "@/provider/provider";
import { Session } from "@/session";
import { MessageV2 } from "@/session/message-v2";
import { Database, eq } from "@/storage/db";
import { Log } from "@/util/log";
import { SessionShareTable } from "./share.sql";

export namespace ShareNext {
  const log = Log.create({ service: "share-next" });
  const disabled = ["true", "1"].includes(process.env["OPENCODE_DISABLE_SHARE"] ?? "");

  export async function url(): Promise<string> {
    const { enterprise } = await Config.get();
    return enterprise?.url ?? process.env["RPCSHARE_URL"] ?? "http://127.0.0.1:8787";
  }

  // The newest comes first from opencode; a share keeps the order in which it gets them.
  const messagesOf = async (sessionID: string) => (await Array.fromAsync(MessageV2.stream(sessionID))).reverse();

  // A model that is not configured any more is no reason not to share.
  const modelOf = async (chosen: { providerID: string; modelID: string }) => {
    try {
      return [await Provider.getModel(chosen.providerID, chosen.modelID)];
    } catch {
      return [];
    }
  };

  const host: Host = {
    config: async () => ({
      url: await url(),
      token: process.env["RPCSHARE_TOKEN"] ?? process.env["OPENCODE_SHARE_RPC_KEY"],
    }),
    logger: log,
    sessions: {
      session: (id) => Session.get(id),
      messages: messagesOf,
      diff: (id) => Session.diff(id),
      models: async (id) => {
        const messages = await messagesOf(id);
        const chosen = messages.flatMap(({ info }) => (info.role === "user" ? [info.model] : []));
        const each = new Map(chosen.map((model) => [`${model.providerID}/${model.modelID}`, model]));
        return (await Promise.all([...each.values()].map(modelOf))).flat();
      },
    },
    store: {
      get: async (id) =>
        Database.use((db) => db.select().from(SessionShareTable).where(eq(SessionShareTable.session_id, id)).get()),
      put: async (session_id, { id, secret, url }) => {
        Database.use((db) =>
          db
            .insert(SessionShareTable)
            .values({ session_id, id, secret, url })
            .onConflictDoUpdate({ target: SessionShareTable.session_id, set: { id, secret, url } })
            .run(),
        );
      },
      remove: async (id) => {
        Database.use((db) => db.delete(SessionShareTable).where(eq(SessionShareTable.session_id, id)).run());
      },
    },
    events: {
      subscribe: (listener) =>
        Bus.subscribeAll((event: OpencodeEvent) => {
          tell(listener, event);
          const chosen = chosenModel(event);
          // Not awaited: whoever publishes an event waits for those who hear it.
          if (chosen) void modelOf(chosen).then((data) => listener.changed(chosen.sessionID, [{ type: "model", data }]));
        }),
    },
  };

  // One client for each directory that opencode works in. It is closed, which sends what waits, when that is disposed of.
  const state = Instance.state(
    () => new Client(host),
    (client) => client.close(),
  );

  export async function init(): Promise<void> {
    if (!disabled) state();
  }

  export async function create(sessionID: string): Promise<{ id: string; url: string; secret: string }> {
    if (disabled) return { id: "", url: "", secret: "" };
    return await state().create(sessionID);
  }

  export async function remove(sessionID: string): Promise<void> {
    if (!disabled) await state().remove(sessionID);
  }
}
