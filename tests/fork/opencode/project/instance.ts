import { AsyncLocalStorage } from "node:async_hooks";

interface Entry {
  state: unknown;
  dispose: ((state: never) => Promise<void>) | undefined;
}

const context = new AsyncLocalStorage<{ directory: string }>();
const states = new Map<string, Map<unknown, Entry>>();

function use() {
  const found = context.getStore();
  if (found === undefined) throw new Error("No context found for instance");
  return found;
}

/** What belongs to one directory: made when it is first asked for there, and disposed of with it. */
export const Instance = {
  provide<R>(input: { directory: string; fn: () => R }): R {
    return context.run({ directory: input.directory }, input.fn);
  },
  get directory() {
    return use().directory;
  },
  state<S>(init: () => S, dispose?: (state: Awaited<S>) => Promise<void>): () => S {
    return () => {
      const { directory } = use();
      const ofDirectory = states.get(directory) ?? new Map<unknown, Entry>();
      states.set(directory, ofDirectory);
      const found = ofDirectory.get(init) ?? { state: init(), dispose };
      ofDirectory.set(init, found);
      return found.state as S;
    };
  },
  async dispose() {
    const { directory } = use();
    const entries = [...(states.get(directory)?.values() ?? [])];
    states.delete(directory);
    await Promise.all(entries.map(async ({ state, dispose }) => dispose?.((await state) as never)));
  },
};
