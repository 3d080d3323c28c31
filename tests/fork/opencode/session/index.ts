import { Bus } from "@/bus";
import { Database, eq } from "@/storage/db";
import { ItemTable } from "@/storage/item.sql";
import { and } from "drizzle-orm";

/** The rows of a session of one type, in the order in which they were made. */
export function rows(sessionID: string, type: "session" | "message" | "part" | "diff"): Record<string, unknown>[] {
  const ofSession = and(eq(ItemTable.session_id, sessionID), eq(ItemTable.type, type));
  return Database.use((db) => db.select().from(ItemTable).where(ofSession).all()).map(({ data }) => data);
}

export function save(sessionID: string, type: "session" | "message" | "part" | "diff", id: string, data: object): void {
  const row = { id, session_id: sessionID, type, data: data as Record<string, unknown> };
  Database.use((db) =>
    db.insert(ItemTable).values(row).onConflictDoUpdate({ target: ItemTable.id, set: { data: row.data } }).run(),
  );
}

export namespace Session {
  export interface Info {
    id: string;
    slug: string;
    projectID: string;
    directory: string;
    title: string;
    version: string;
    time: { created: number; updated: number };
    share?: { url: string };
  }
  export interface FileDiff {
    file: string;
    before: string;
    after: string;
    additions: number;
    deletions: number;
  }

  export const Event = {
    Updated: { type: "session.updated" } as Bus.Definition<{ info: Info }>,
    Deleted: { type: "session.deleted" } as Bus.Definition<{ info: Info }>,
    Diff: { type: "session.diff" } as Bus.Definition<{ sessionID: string; diff: FileDiff[] }>,
  };

  export async function get(id: string): Promise<Info> {
    const [info] = rows(id, "session");
    if (info === undefined) throw new Error(`NotFoundError: Session not found: ${id}`);
    return info as unknown as Info;
  }

  export async function diff(id: string): Promise<FileDiff[]> {
    return rows(id, "diff") as unknown as FileDiff[];
  }
}
