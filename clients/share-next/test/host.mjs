// A host whose sessions are in memory.
import { ShareNext } from "../dist/index.js";

export class MemoryHost {
  sessions = {
    session: async (id) => this.#of(id).session,
    messages: async (id) => {
      const { messages, parts } = this.#of(id);
      return [...messages.values()].map((info) => ({
        info,
        parts: [...parts.values()].filter((part) => part.messageID === info.id),
      }));
    },
    diff: async (id) => this.#of(id).diffs,
    models: async (id) => [...this.#of(id).models.values()],
  };

  records = new Map();
  store = {
    get: async (id) => this.records.get(id),
    put: async (id, record) => void this.records.set(id, record),
    remove: async (id) => void this.records.delete(id),
  };

  logged = [];
  logger = Object.fromEntries(
    ["info", "warn", "error"].map((level) => [level, (message, details) => this.logged.push({ level, message, details })]),
  );

  events = {
    subscribe: (listener) => {
      this.listener = listener;
      return () => (this.listener = undefined);
    },
  };

  #sessions = new Map();

  constructor(url, token) {
    this.config = () => ({ url, token });
  }

  warnings() {
    return this.logged.filter(({ level }) => level !== "info").map(({ message }) => message);
  }

  /** Changes a session, and tells of it. */
  change(id, ...items) {
    const held = this.#of(id);
    for (const { type, data } of items) {
      if (type === "session") held.session = data;
      else if (type === "session_diff") held.diffs = [...held.diffs, ...data];
      else if (type === "model") data.forEach((model) => held.models.set(model.id, model));
      else held[`${type}s`].set(data.id, data);
    }
    this.listener?.changed(id, items);
  }

  delete(id) {
    this.listener.deleted(id);
  }

  /** What a share of the session has to hold. */
  expected(id) {
    const { session, messages, parts, diffs, models } = this.#of(id);
    return {
      session,
      messages: [...messages.values()],
      parts: [...parts.values()],
      diffs,
      models: [...models.values()],
    };
  }

  #of(id) {
    let held = this.#sessions.get(id);
    if (held === undefined) {
      held = { session: { id }, messages: new Map(), parts: new Map(), diffs: [], models: new Map() };
      this.#sessions.set(id, held);
    }
    return held;
  }
}

let sessions = 0;

/** An ID that no other session of this run has. */
export function newSessionID() {
  return `ses_${process.pid}_${++sessions}_${Math.random().toString(36).slice(2, 12)}`;
}

/** A client of a memory host, quicker than in real life. */
export function share(url, token, options = {}) {
  const host = new MemoryHost(url, token);
  const client = new ShareNext(host, { collectFor: 30, callTimeout: 3000, ...options });
  return { host, client };
}

export const session = (id, title) => ({ type: "session", data: { id, title } });
export const message = (id, text) => ({ type: "message", data: { id, text } });
export const part = (id, messageID, text) => ({ type: "part", data: { id, messageID, type: "text", text } });
export const diff = (...files) => ({ type: "session_diff", data: files.map((file) => ({ file, additions: 1 })) });
export const model = (id) => ({ type: "model", data: [{ id, providerID: "acme" }] });
