// What the server holds already.
import type { AgentSession, FileDiff, Identified, Json, SyncData } from "@rpcshare/types";

/** Those of the items of a session that a share does not hold, or not as they are. */
export function lacking(held: AgentSession, items: readonly SyncData[]): SyncData[] {
  const messages = byID(held.messages);
  const parts = byID(held.parts);
  const models = new Map(held.models.map((model) => [modelKey(model), model]));
  return items.flatMap((item): SyncData[] => {
    switch (item.type) {
      case "session":
        return same(held.session, item.data) ? [] : [item];
      case "message":
        return same(messages.get(item.data.id) ?? null, item.data) ? [] : [item];
      case "part":
        return same(parts.get(item.data.id) ?? null, item.data) ? [] : [item];
      case "model": {
        const data = item.data.filter((model) => !same(models.get(modelKey(model)) ?? null, model));
        return data.length === 0 ? [] : [{ type: "model", data }];
      }
      case "session_diff":
        return holds(held.diffs, item.data) ? [] : [item];
    }
  });
}

function byID(items: readonly Identified[]): Map<string, Identified> {
  return new Map(items.map((item) => [item.id, item]));
}

function modelKey(model: Identified): string {
  return JSON.stringify([model["providerID"] ?? null, model.id]);
}

/** Whether `run` is somewhere in `held`, in one piece. */
export function holds(held: readonly FileDiff[], run: readonly FileDiff[]): boolean {
  for (let start = 0; start + run.length <= held.length; start++) {
    if (run.every((diff, index) => same(held[start + index] ?? null, diff))) return true;
  }
  return false;
}

/** Whether the server's value is what ours has become there: credentials in it may have been redacted. */
function same(theirs: Json, ours: Json): boolean {
  if (typeof ours === "string") {
    return theirs === ours || (typeof theirs === "string" && theirs.includes("[redacted:"));
  }
  if (typeof ours !== "object" || ours === null) return theirs === ours;
  if (typeof theirs !== "object" || theirs === null || Array.isArray(theirs) !== Array.isArray(ours)) return false;
  const names = Object.keys(ours);
  return (
    names.length === Object.keys(theirs).length &&
    names.every((name) => name in theirs && same((theirs as Indexed)[name] ?? null, (ours as Indexed)[name] ?? null))
  );
}

type Indexed = Readonly<Record<string, Json>>;
