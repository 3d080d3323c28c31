// What this plugin uses of opencode's plugins: `@opencode-ai/plugin` has all of it, and brings 50 MB along.
import type { Config, createOpencodeClient, Event, Part } from "@opencode-ai/sdk";

export type Client = ReturnType<typeof createOpencodeClient>;

export type PluginOptions = Record<string, unknown>;

export interface Hooks {
  config?: (config: Pick<Config, "share" | "command">) => Promise<void>;
  event?: (input: { event: Event }) => Promise<void>;
  "command.execute.before"?: (
    input: { command: string; sessionID: string; arguments: string },
    output: { parts: Part[] },
  ) => Promise<void>;
  dispose?: () => Promise<void>;
}

export type Plugin = (input: { client: Client }, options?: PluginOptions) => Promise<Hooks>;
