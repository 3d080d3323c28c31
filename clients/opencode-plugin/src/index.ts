// opencode's sessions, shared to a server of one's own.
import { homedir } from "node:os";
import path from "node:path";
import { ShareNext } from "@rpcshare/share-next";
import { commandConfig, isCommand, run } from "./commands.js";
import { FileStore } from "./file-store.js";
import type { Hooks, Plugin } from "./hooks.js";
import { Opencode, Screen } from "./opencode.js";
import { readSettings, type Settings } from "./settings.js";

// After the end of a turn opencode sums it up: as long as it goes on to tell of something, there is more to send.
const QUIET = 300;
const LONGEST_EXIT = 10_000;

const rpcshare: Plugin = async ({ client }, options = {}) => {
  const isRun = process.argv[2] === "run";
  const screen = new Screen(client, isRun);
  let settings: Settings | undefined;
  try {
    settings = readSettings(options, process.env);
  } catch (error) {
    screen.show(`Sharing is off: ${(error as Error).message}`, "error");
  }
  if (settings === undefined) return {};

  const { url, token, access } = settings;
  const store = new FileStore(settings.directory ?? defaultDirectory(), url);
  const opencode = new Opencode(client, { url, token }, store, screen);
  const share = new ShareNext(opencode);
  let isAutomatic = settings.auto ?? false;

  const begin = async (sessionID: string) => {
    try {
      const made = await share.create(sessionID, { keepTrying: true, access });
      screen.show(`~  ${made.url}`);
    } catch (error) {
      opencode.logger.error("a session cannot be shared", { sessionID, error: String(error) });
    }
  };

  // Not everything that ends opencode lets plugins finish. What is behind then is sent by the next process.
  const markBehind = () => {
    for (const [sessionID, record] of share.recordsBehind()) store.putNow(sessionID, record);
  };
  process.on("exit", markBehind);

  const hooks: Hooks = {
    config: async (config) => {
      isAutomatic = settings.auto ?? (config.share === "auto" || (isRun && process.argv.includes("--share")));
      // opencode's own sharing would send the same sessions elsewhere.
      config.share = "disabled";
      config.command = { ...commandConfig(), ...config.command };
    },

    event: async ({ event }) => {
      opencode.heard(event);
      if (event.type === "session.created" && isAutomatic && event.properties.info.parentID === undefined) {
        await begin(event.properties.info.id);
      }
      if (event.type === "session.idle") await share.flush();
    },

    "command.execute.before": async ({ command, sessionID }, output) => {
      if (!isCommand(command)) return;
      const line = await run(command, share, sessionID, access);
      screen.show(line);
      // A command is a message to the model, which cannot be held back; so it has the answer in it.
      const text = `${line}\n\n(Repeat this line to me, and do nothing else.)`;
      output.parts.splice(0, output.parts.length, { type: "text", text } as (typeof output.parts)[number]);
    },

    dispose: async () => {
      const end = Date.now() + LONGEST_EXIT;
      if (share.isInUse) {
        do {
          await share.flush(end - Date.now());
          await new Promise((resolve) => setTimeout(resolve, 50));
        } while (Date.now() < end && (opencode.quietFor < QUIET || share.behind.length > 0));
      }
      await share.close(Math.max(end - Date.now(), 0));
      process.off("exit", markBehind);
    },
  };
  return hooks;
};

function defaultDirectory(): string {
  const data = process.env["XDG_DATA_HOME"] || path.join(homedir(), ".local", "share");
  return path.join(data, "opencode", "rpcshare");
}

export default rpcshare;
