// What the client needs of the program that it is part of.
import type { FileDiff, Identified, Item, ShareCredentials, SyncData } from "@rpcshare/types";

/** The program whose sessions are shared. */
export interface Host {
  readonly events: HostEvents;
  readonly sessions: HostSessions;
  readonly store: ShareStore;
  readonly logger: Logger;

  /** Where the server is, and who asks. Read at every attempt to connect, so it may change. */
  config(): ServerConfig | Promise<ServerConfig>;
}

export interface ServerConfig {
  /** Of the server, such as `https://share.example`; a path in it is kept. */
  readonly url: string;
  /** An API key or another token; without one the caller is anonymous. */
  readonly token?: string | undefined;
}

/** Tells of what happens to sessions. */
export interface HostEvents {
  /** Starts to tell `listener`; what it returns ends that. */
  subscribe(listener: SessionListener): () => void;
}

export interface SessionListener {
  /** Items of a session are new or have changed. They are copied before the call returns. */
  changed(sessionID: string, items: readonly Loose<SyncData>[]): void;
  /** A session is gone. */
  deleted(sessionID: string): void;
}

/** What a program holds of a session now; it need not be declared as JSON, as long as it is. */
export interface HostSessions {
  session(sessionID: string): Promise<Loose<Item>>;
  messages(sessionID: string): Promise<readonly { info: Loose<Identified>; parts: readonly Loose<Identified>[] }[]>;
  diff(sessionID: string): Promise<readonly Loose<FileDiff>[]>;
  models(sessionID: string): Promise<readonly Loose<Identified>[]>;
}

/** A value of some interface of the host's, where this package wants JSON. */
export type Loose<T> = T extends { type: infer Type; data: unknown } ? { type: Type; data: unknown } : object;

/** Keeps the credentials of shares by session, beyond the life of the process. */
export interface ShareStore {
  get(sessionID: string): Promise<ShareRecord | undefined>;
  put(sessionID: string, record: ShareRecord): Promise<void>;
  remove(sessionID: string): Promise<void>;
}

/** What is kept of a share. */
export interface ShareRecord extends ShareCredentials {
  /** The process ended before all was sent: the whole session is sent again. A store may drop it. */
  readonly behind?: boolean | undefined;
}

/** Hears of every failure. No message holds a token or a secret. */
export interface Logger {
  info(message: string, details?: Details): void;
  /** Something that the user should know: at most one for each outage. */
  warn(message: string, details?: Details): void;
  /** Something is not shared that should have been. */
  error(message: string, details?: Details): void;
}

export type Details = Readonly<Record<string, string | number | undefined>>;
