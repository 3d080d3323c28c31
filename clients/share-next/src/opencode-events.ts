// opencode's events, as what they change.
import type { SyncData } from "@rpcshare/types";
import type { Loose, SessionListener } from "./host.js";

/** An event of opencode's bus, or one that a plugin is told of. */
export interface OpencodeEvent {
  readonly type: string;
  readonly properties?: unknown;
}

/** Tells `listener` what an event of opencode's changes. Other events are ignored. */
export function tell(listener: SessionListener, event: OpencodeEvent): void {
  const { info, part, diff, sessionID } = (event.properties ?? {}) as Properties;
  const changed = (session: string | undefined, item: Loose<SyncData>) => {
    if (session !== undefined) listener.changed(session, [item]);
  };
  switch (event.type) {
    case "session.created":
    case "session.updated":
      if (info !== undefined) changed(info.id, { type: "session", data: info });
      break;
    case "session.deleted":
      if (info?.id !== undefined) listener.deleted(info.id);
      break;
    case "message.updated":
      if (info !== undefined) changed(info.sessionID, { type: "message", data: info });
      break;
    case "message.part.updated":
      if (part !== undefined) changed(part.sessionID, { type: "part", data: part });
      break;
    case "session.diff":
      if (diff !== undefined) changed(sessionID, { type: "session_diff", data: diff });
      break;
  }
}

/** The model that a message's author has chosen, if the event is of such a message. */
export function chosenModel(event: OpencodeEvent): { sessionID: string; providerID: string; modelID: string } | undefined {
  const { info } = (event.properties ?? {}) as Properties;
  if (event.type !== "message.updated" || info?.role !== "user") return undefined;
  if (info.sessionID === undefined || info.model === undefined) return undefined;
  return { sessionID: info.sessionID, ...info.model };
}

interface Properties {
  info?: {
    id?: string;
    sessionID?: string;
    role?: string;
    model?: { providerID: string; modelID: string };
  };
  part?: { sessionID?: string };
  diff?: object[];
  sessionID?: string;
}
