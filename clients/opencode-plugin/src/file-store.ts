import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import path from "node:path";
import type { ShareRecord, ShareStore } from "@rpcshare/share-next";

/** Keeps what is known of shares in files, one for each session, readable by their owner alone. */
export class FileStore implements ShareStore {
  /**
   * @param server The URL of the server: shares on another one are none of this store's.
   */
  constructor(
    private readonly directory: string,
    private readonly server: string,
  ) {}

  async get(sessionID: string): Promise<ShareRecord | undefined> {
    let text: string;
    try {
      text = await readFile(this.#file(sessionID), "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
    const record: unknown = JSON.parse(text);
    return isRecord(record) && record.server === this.server ? record : undefined;
  }

  async put(sessionID: string, record: ShareRecord): Promise<void> {
    this.putNow(sessionID, record);
  }

  /** Returns when the file is written: as a process exits, nothing can be awaited any longer. */
  putNow(sessionID: string, { id, secret, url, behind }: ShareRecord): void {
    const file = this.#file(sessionID);
    mkdirSync(this.directory, { recursive: true, mode: 0o700 });
    writeFileSync(`${file}.new`, JSON.stringify({ server: this.server, id, secret, url, behind }), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  }

  async remove(sessionID: string): Promise<void> {
    await rm(this.#file(sessionID), { force: true });
  }

  #file(sessionID: string): string {
    if (!/^[\w-]+$/.test(sessionID)) throw new TypeError("a session ID holds letters, digits, _ and - only");
    return path.join(this.directory, `${sessionID}.json`);
  }
}

function isRecord(value: unknown): value is ShareRecord & { server: string } {
  if (typeof value !== "object" || value === null) return false;
  return ["server", "id", "secret", "url"].every((name) => typeof (value as Record<string, unknown>)[name] === "string");
}
