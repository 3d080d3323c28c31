// Sessions as files in a directory, for the benchmarks' peers on Node and Bun.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

export async function directory(path) {
  await mkdir(path, { recursive: true });
  const file = (id) => join(path, `${id}.json`);
  return { read: (id) => readFile(file(id), "utf8"), write: (id, text) => writeFile(file(id), text) };
}
