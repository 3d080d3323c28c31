// What a user can type.
import type { AccessOptions, ShareNext } from "@rpcshare/share-next";

const DESCRIPTIONS = {
  share: "Share this session, and show the link",
  unshare: "Take the share of this session down",
  "share-status": "Show whether this session is shared, and whether all of it has arrived",
} as const;

export type CommandName = keyof typeof DESCRIPTIONS;

export function isCommand(name: string): name is CommandName {
  return Object.hasOwn(DESCRIPTIONS, name);
}

/** The commands in the form of opencode's configuration. */
export function commandConfig(): Record<CommandName, { template: string; description: string }> {
  const entries = Object.entries(DESCRIPTIONS).map(([name, description]) => [name, { template: name, description }]);
  return Object.fromEntries(entries) as Record<CommandName, { template: string; description: string }>;
}

/** Does what a command says, and returns one line for the user. */
export async function run(
  name: CommandName,
  share: ShareNext,
  sessionID: string,
  access: AccessOptions | undefined,
): Promise<string> {
  try {
    switch (name) {
      case "share":
        return `This session is shared: ${(await share.create(sessionID, { access })).url}`;
      case "unshare":
        return (await share.remove(sessionID)) ? "This session is no longer shared." : "This session is not shared.";
      case "share-status": {
        const found = await share.get(sessionID);
        if (found === undefined) return "This session is not shared.";
        const state = share.behind.includes(sessionID) ? "some of it is still being sent" : "all of it has arrived";
        return `This session is shared, and ${state}: ${found.url}`;
      }
    }
  } catch (error) {
    return `Sharing failed: ${error instanceof Error ? error.message : String(error)}`;
  }
}
