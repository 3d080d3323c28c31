import { Bus } from "@/bus";
import { rows } from "@/session";

export namespace MessageV2 {
  interface Base {
    id: string;
    sessionID: string;
    time: { created: number };
  }
  export interface User extends Base {
    role: "user";
    model: { providerID: string; modelID: string };
  }
  export interface Assistant extends Base {
    role: "assistant";
    providerID: string;
    modelID: string;
    cost: number;
  }
  export type Info = User | Assistant;
  export interface Part {
    id: string;
    messageID: string;
    sessionID: string;
    type: "text";
    text: string;
  }
  export interface WithParts {
    info: Info;
    parts: Part[];
  }

  export const Event = {
    Updated: { type: "message.updated" } as Bus.Definition<{ info: Info }>,
    PartUpdated: { type: "message.part.updated" } as Bus.Definition<{ part: Part }>,
  };

  /** The newest first, as opencode's own does. */
  export async function* stream(sessionID: string): AsyncGenerator<WithParts> {
    const parts = rows(sessionID, "part") as unknown as Part[];
    for (const info of (rows(sessionID, "message") as unknown as Info[]).reverse()) {
      yield { info, parts: parts.filter((part) => part.messageID === info.id) };
    }
  }
}
