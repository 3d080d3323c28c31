import { Database as Sqlite } from "bun:sqlite";
import { drizzle } from "drizzle-orm/bun-sqlite";

export { eq } from "drizzle-orm";

const sqlite = new Sqlite(process.env["FORK_DATABASE"]!, { create: true });
sqlite.run("PRAGMA journal_mode = WAL");
sqlite.run("PRAGMA busy_timeout = 5000");
sqlite.run("CREATE TABLE IF NOT EXISTS item (id TEXT PRIMARY KEY, session_id TEXT, type TEXT, data TEXT)");
sqlite.run(`CREATE TABLE IF NOT EXISTS session_share (session_id TEXT PRIMARY KEY, id TEXT NOT NULL,
  secret TEXT NOT NULL, url TEXT NOT NULL, time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL)`);
const client = drizzle(sqlite);

export namespace Database {
  export type TxOrDb = typeof client;

  export function use<T>(callback: (db: TxOrDb) => T): T {
    return callback(client);
  }
}
