// Whether the server holds certain diffs already.
import type { FileDiff, Json } from "@rpcshare/types";

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
