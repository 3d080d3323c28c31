// What an rpcshare server takes and answers (PROTOCOL.md). tests/clients_ts/test_types.py holds this file
// against the server's definitions.

/** A value that JSON has a form for. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** An object of opencode's, kept as it is. What is not named here is there all the same. */
export type Item = { [name: string]: Json };

/** A session, message, part or model of opencode's. */
export type Identified = Item & { id: string };

/** One element of a `session_diff`. */
export type FileDiff = Item;

/** One item of a sync. */
export type SyncData =
  | { type: "session"; data: Item }
  | { type: "message"; data: Identified }
  | { type: "part"; data: Identified }
  | { type: "session_diff"; data: FileDiff[] }
  | { type: "model"; data: Identified[] };

/** What `createShare` gives to the caller that may write the share. */
export interface ShareCredentials {
  id: string;
  url: string;
  /** Who holds it may sync and delete the share. */
  secret: string;
}

export interface SyncResult {
  success: boolean;
  syncCount: number;
}

/** A whole share. */
export interface AgentSession {
  session: Item;
  messages: Identified[];
  parts: Identified[];
  diffs: FileDiff[];
  models: Identified[];
  metadata: ShareMetadata;
}

/** Times are milliseconds since the epoch. */
export interface ShareMetadata {
  createdAt: number;
  lastUpdated: number;
  syncCount: number;
  sessionID: string;
}

/** What a listing tells of a share. Times are milliseconds since the epoch. */
export interface SessionIndex {
  id: string;
  sessionID: string;
  title: string;
  directory: string;
  messageCount: number;
  partCount: number;
  diffCount: number;
  modelCount: number;
  lastUpdated: number;
  syncCount: number;
  createdAt: number;
  /** Why the last sync was not taken, if none has been taken since. */
  lastRefusal?: { time: number; code: string; message: string };
}

export interface ListOptions {
  /** Of the page before. */
  cursor?: string;
  /** 1 to 200; 50 if it is not given. */
  limit?: number;
  /** What the title, the directory, the id or the session ID must contain. */
  query?: string;
}

export interface SessionPage {
  sessions: SessionIndex[];
  /** Of all that was found, on this page or not. */
  count: number;
  /** Where the next page begins; null on the last. */
  cursor: string | null;
  /** Not all shares have been indexed yet, so there may be more. */
  indexing?: boolean;
}

export interface SearchOptions {
  /** Words, "phrases", -not, tool:bash, file:app.ts, role:user, before:2026-11-28, after:2026-11-01. */
  query: string;
  /** Of the page before. */
  cursor?: string;
  /** 1 to 100; 20 if it is not given. */
  limit?: number;
}

export interface SearchHit {
  shareID: string;
  /** Of the share. */
  title: string;
  /** Null: it is in the title, or in a diff of the whole session. */
  messageID: string | null;
  partID: string | null;
  /** Some of the text around it. */
  snippet: string;
  /** Of the message, in milliseconds since the epoch. */
  time: number;
}

export interface SearchPage {
  hits: SearchHit[];
  /** Where the next page begins; null on the last. */
  cursor: string | null;
  /** Not all shares have been indexed yet, so there may be more. */
  indexing?: boolean;
}

export interface Identity {
  subject: string | null;
  scopes: string[];
}

/** All that a share holds; it replaces whatever the viewer has. */
export interface SnapshotEvent {
  type: "snapshot";
  shareID: string;
  syncCount: number;
  data: SyncData[];
}

/** What has come since the event before. */
export interface SyncEvent {
  type: "sync";
  shareID: string;
  syncCount: number;
  data: SyncData[];
}

/** The share is gone; no event follows. */
export interface DeletedEvent {
  type: "deleted";
  shareID: string;
}

export type ShareEvent = SnapshotEvent | SyncEvent | DeletedEvent;

/** The `code` of an error. There may come more. */
export type ErrorCode =
  | "SHARE_NOT_FOUND"
  | "INVALID_SECRET"
  | "INVALID_ARGUMENT"
  | "UNAUTHORIZED"
  | "FORBIDDEN"
  | "SHARE_GONE"
  | "PAYLOAD_TOO_LARGE"
  | "RATE_LIMITED"
  | "RATE_LIMIT_EXCEEDED"
  | "STORAGE_UNAVAILABLE"
  | "WORKSPACE_NOT_FOUND"
  | "SESSION_NOT_FOUND"
  | "SESSION_TERMINATED"
  | "CONTAINER_START_FAILED"
  | "INTEGRATION_AUTH_FAILED"
  | "SYNC_FAILED"
  | "INTERNAL";

/** A subscription; disposing of it unsubscribes too. */
export interface Subscription {
  unsubscribe(): null;
}

/** One share, with the right to write it. */
export interface Share {
  sync(data: SyncData[]): SyncResult;
  snapshot(): AgentSession;
  subscribe(onEvent: (event: ShareEvent) => void, fromSyncCount?: number): Subscription;
  delete(): { success: boolean };
}

export type Visibility = "link" | "private" | "organization";

/** Who may read a share, and until when. What is left out stays as it is. */
export interface AccessOptions {
  visibility?: Visibility;
  /** From now on: seconds, or a duration such as `30d`; null: for ever. */
  expiresIn?: number | string | null;
  /** Null: none. */
  password?: string | null;
}

/** What `createShare` may be told. */
export interface CreateOptions extends AccessOptions {
  /** Of a share of the session that belongs to nobody: it becomes the caller's. */
  secret?: string;
}

export interface AccessSettings {
  visibility: Visibility;
  hasPassword: boolean;
  /** In milliseconds since the epoch; null: it does not. */
  expiresAt: number | null;
}

/** A right to read one share, to be passed on: who has it shows it as its token. */
export interface ViewToken {
  token: string;
  /** In milliseconds since the epoch. */
  expiresAt: number;
}

export interface ViewTokenOptions {
  /** Seconds, or a duration such as `30d`. */
  expiresIn?: number | string | null;
}

export interface KeyOptions {
  /** `create` if none are given. */
  scopes?: string[] | null;
  /** Seconds, or a duration such as `30d`. */
  expiresIn?: number | string | null;
  /** Of what is shared with the key, unless said; the server's if this is null. */
  defaultVisibility?: Visibility | null;
  /** Requests a minute. */
  rateLimit?: number | null;
}

/** What is known of a key. Times are milliseconds since the epoch; null is never, or not yet. */
export interface ApiKey {
  id: string;
  name: string;
  scopes: string[];
  createdAt: number;
  expiresAt: number | null;
  rotatedAt: number | null;
  revokedAt: number | null;
}

/** A key that has just been made. */
export interface NewApiKey {
  id: string;
  name: string;
  /** The key itself: it is in this answer, and nowhere else. */
  key: string;
  scopes: string[];
  createdAt: number;
  expiresAt: number | null;
}

/** The API keys of the server, in the hands of an admin. */
export interface ApiKeys {
  create(name: string, options?: KeyOptions | null): NewApiKey;
  list(): ApiKey[];
  rotate(id: string): NewApiKey;
  revoke(id: string): ApiKey;
}

/** What the vault keeps. */
export interface NewVaultEntry {
  /** What the key is for, such as "openai": letters, digits, dots, dashes and underscores. */
  service: string;
  name: string;
  /** At most 64 KiB of UTF-8. */
  value: string;
  /** Whose it is: one's own if this is left out. */
  owner?: "user" | "organization" | null;
  scopes?: string[] | null;
  /** The workspaces and integrations that may use it; all of its owner's if this is left out. */
  grants?: string[] | null;
  expiresAt?: number | string | Date | null;
}

/** What is known of a key in the vault. Times are milliseconds since the epoch. */
export interface VaultEntry {
  id: string;
  owner: "user" | "organization";
  service: string;
  name: string;
  scopes: string[];
  grants?: string[];
  createdAt: number;
  rotatedAt: number | null;
  expiresAt: number | null;
  usedAt: number | null;
}

/** The keys of third parties of one caller. */
export interface Vault {
  store(secret: NewVaultEntry): { id: string };
  list(): VaultEntry[];
  retrieve(id: string): VaultEntry & { value: string };
  rotate(id: string, value: string): VaultEntry;
  revoke(id: string): { success: boolean };
}

export type Role = "viewer" | "member" | "admin" | "server-admin";

/** Somebody who has signed in with an identity provider. */
export interface Account {
  id: string;
  email: string;
  name: string;
  avatarURL: string;
  organization: string;
  role: Role;
}

/** A user as admins see it; times are milliseconds since the epoch. */
export interface ManagedAccount extends Account {
  createdAt: number;
  seenAt: number;
  disabledAt: number | null;
}

/** What somebody has; a `limit` that is null is none. */
export interface Measure {
  used: number;
  limit: number | null;
}

/** `storage` is in bytes, `requests` are of the minute that is under way. */
export interface Usage {
  storage: Measure;
  shares: Measure;
  requests: Measure;
}

/** Null: what the settings of the server say; 0: no limit. What is left out stays. */
export interface LimitOptions {
  storage?: number | null;
  shares?: number | null;
  requests?: number | null;
}

/** What was done in an organization; `time` is in milliseconds since the epoch. */
export interface AuditRecord {
  id: string;
  time: number;
  action: string;
  outcome: "ok" | "refused" | "failed";
  subject: string;
  address: string;
  details: Record<string, string>;
}

/** Limits of a workspace as they are given: bytes or "512MiB", processors or "500m", seconds or "2h". */
export interface WorkspaceLimits {
  memory?: number | string | null;
  cpu?: number | string | null;
  disk?: number | string | null;
  timeout?: number | string | null;
}

/** Another workspace, which agents see at /mnt/NAME and cannot change. */
export interface WorkspaceMount {
  name: string;
  workspace: string;
  readonly?: true;
}

/** What a workspace is made from. */
export interface NewWorkspace {
  name: string;
  /** A repository; `key` is the id or name of an entry of the vault, of the service "git". */
  source?: { git: string; ref?: string | null; key?: string | null } | null;
  mounts?: WorkspaceMount[] | null;
  resources?: WorkspaceLimits | null;
  /** Hosts that its agents may connect to: "HOST", "*.HOST", either with ":PORT". */
  hosts?: string[] | null;
}

/** What is known of a workspace. Times are milliseconds since the epoch, sizes are bytes. */
export interface WorkspaceInfo {
  id: string;
  name: string;
  status: "creating" | "ready" | "removing";
  source: { git: string; ref: string | null } | null;
  mounts: WorkspaceMount[];
  resources: { memory: number; cpu: number; disk: number; timeout: number | null };
  hosts: string[];
  createdAt: number;
  updatedAt: number;
  diskUsed: number;
  measuredAt: number | null;
}

export interface WorkspaceFileEntry {
  name: string;
  path: string;
  type: "file" | "directory" | "symlink" | "other";
  size: number;
  lastModified: number;
}

/** A line that was found; `start` and `end` are places in `text`. */
export interface WorkspaceFileMatch {
  path: string;
  line: number;
  text: string;
  start: number;
  end: number;
}

/** The files of a workspace. No path leads out of it. */
export interface WorkspaceFiles {
  list(path?: string): { entries: WorkspaceFileEntry[]; truncated: boolean };
  find(name: string): { paths: string[]; truncated: boolean };
  search(
    query: string,
    options?: { glob?: string | string[] | null; limit?: number; regexp?: boolean } | null,
  ): { matches: WorkspaceFileMatch[]; truncated: boolean };
  /** `content` is a string if the file is text. */
  read(path: string): { content: string | Uint8Array; mimeType: string; size: number; lastModified: number };
}

/** A directory that agents work on. */
export interface Workspace {
  info(): WorkspaceInfo;
  files(): WorkspaceFiles;
  update(changes: Omit<Partial<NewWorkspace>, "source">): WorkspaceInfo;
}

export type AgentStatus =
  | "initializing"
  | "running"
  | "idle"
  | "blocked"
  | "paused"
  | "interrupted"
  | "terminated"
  | "failed";

/** What an agent may spend; it is paused when that is spent. */
export interface AgentBudget {
  dollars?: number | null;
  tokens?: number | null;
  turns?: number | null;
}

/** One of opencode's rules. */
export interface PermissionRule {
  permission: string;
  pattern: string;
  action: "allow" | "ask" | "deny";
}

/** What an agent is started with. */
export interface StartOptions {
  workspace: string;
  prompt?: string | null;
  title?: string | null;
  /** "NAME/model", of the server's settings. */
  model?: string | null;
  /** Which of opencode's agents: "build", "plan", or one of the workspace's. */
  agent?: string | null;
  permission?: PermissionRule[] | Record<string, "allow" | "ask" | "deny"> | null;
  resources?: WorkspaceLimits | null;
  budget?: AgentBudget | null;
}

/** What is known of an agent. Times are milliseconds since the epoch, `cost` is in dollars. */
export interface AgentInfo {
  id: string;
  share: { id: string; url: string };
  workspace: string;
  status: AgentStatus;
  title: string;
  model: string;
  agent: string;
  parent: string | null;
  createdAt: number;
  lastActiveAt: number;
  cost: number;
  tokens: { input: number; output: number; cacheRead: number; cacheWrite: number; total: number };
  turns: number;
  budget: AgentBudget;
  error?: string;
}

/** A file that goes with a message: `url` is a data: URL. */
export interface Attachment {
  url: string;
  mimeType: string;
  filename?: string;
}

export interface SendOptions {
  /** Sent again with the same id, "msg_…", a message is the same message. */
  id?: string | null;
  attachments?: Attachment[] | null;
  /** Behind what waits, or before the next step of the turn under way. */
  delivery?: "queue" | "steer" | null;
}

/** A message that waits, or whose turn is under way. */
export interface QueuedMessage {
  messageID: string;
  content: string;
  command?: string;
  attachments: { filename: string; mimeType: string }[];
  delivery: "queue" | "steer";
  state: "queued" | "sent" | "ended" | "interrupted" | "dropped";
  createdAt: number;
  transcriptID: string | null;
}

export interface AgentQuestion {
  question: string;
  header: string;
  options: { label: string; description: string }[];
  multiple?: boolean;
  custom?: boolean;
}

/** What somebody has to answer, or has answered. */
export interface AgentRequest {
  id: string;
  agent: string;
  kind: "approval" | "question";
  state: "asked" | "answered" | "withdrawn";
  askedAt: number;
  /** Of an approval. */
  permission?: string;
  patterns?: string[];
  always?: string[];
  metadata?: Record<string, unknown>;
  /** Of a question. */
  questions?: AgentQuestion[];
  answer?: Record<string, unknown> | null;
  answeredBy?: string | null;
}

/** What answers one approval or question, once. */
export interface Approval {
  info(): AgentRequest;
  /** To a question: labels, or words of one's own, for each; or "reject". */
  answer(answer: "once" | "always" | "reject" | string | string[][], note?: string): AgentRequest;
  /** A page that answers it once, within a day, for whoever opens it. */
  link(): { url: string; expiresAt: number };
}

/** What happens to an agent; `cursor` is where `watch` and `subscribe` go on behind it. */
export type AgentNews = { cursor: string } & (
  | ShareEvent
  | { type: "status"; at: number; status: AgentStatus; error?: string }
  | {
      type: "turn";
      at: number;
      state: "queued" | "started" | "ended";
      messageID: string;
      transcriptID?: string | null;
      delivery?: "queue" | "steer";
      reason?: string;
    }
  /** `approval` is there where it is asked. `dup()` it to answer when `onEvent` has returned. */
  | ({ type: "approval" | "question"; at: number; approval?: Approval } & Partial<AgentRequest>)
  | { type: "file"; at: number; path: string }
  | { type: "budget"; at: number; budget?: AgentBudget; spent?: Record<string, number>; reason?: string }
);

/** One agent. */
export interface Agent {
  info(): AgentInfo;
  send(content: string, options?: SendOptions | null): { messageID: string };
  ask(content: string): ReadableStream<AgentNews>;
  command(name: string, arguments?: string): { messageID: string };
  queue(): QueuedMessage[];
  unqueue(messageID: string): { removed: boolean };
  watch(cursor?: string | null): ReadableStream<AgentNews>;
  subscribe(onEvent: (event: AgentNews) => void, cursor?: string | null): Subscription;
  approvals(): (AgentRequest & { approval: Approval })[];
  approval(id: string): Approval;
  abort(): { success: boolean };
  pause(): { success: boolean };
  resume(options?: { budget?: AgentBudget | null } | null): { success: boolean };
  terminate(): { success: boolean };
  fork(messageID?: string | null): Agent;
  revert(messageID: string): { success: boolean };
  unrevert(): { success: boolean };
  diff(): { file: string; additions: number; deletions: number; patch?: string; status?: string }[];
  todo(): { content: string; status: string; priority: string }[];
  files(): WorkspaceFiles;
}

/** The agents of one caller. */
export interface Agents {
  start(options: StartOptions): Agent;
  list(options?: { status?: AgentStatus; workspace?: string; cursor?: string; limit?: number } | null): {
    agents: AgentInfo[];
    cursor: string | null;
  };
  get(sessionID: string): Agent;
}

/** The workspaces of one caller. */
export interface Workspaces {
  create(workspace: NewWorkspace): Workspace;
  list(): WorkspaceInfo[];
  get(id: string): Workspace;
  remove(id: string, options?: { snapshot?: boolean } | null): { success: boolean; snapshot: string | null };
}

/** What `users()` gives to admins. */
export interface Users {
  list(
    options?: { cursor?: string | null; limit?: number; query?: string; organization?: string | null } | null,
  ): { users: ManagedAccount[]; cursor: string | null };
  get(id: string): ManagedAccount;
  setRole(id: string, role: Role): ManagedAccount;
  disable(id: string): ManagedAccount;
  enable(id: string): ManagedAccount;
  limits(id: string): { user: Usage; organization: Usage };
  setLimits(id: string, limits: LimitOptions): { user: Usage; organization: Usage };
  organizations(
    options?: { cursor?: string | null; limit?: number } | null,
  ): { organizations: { name: string; createdAt: number; users: number }[]; cursor: string | null };
  organizationLimits(name: string): Usage;
  setOrganizationLimits(name: string, limits: LimitOptions): Usage;
  audit(
    options?: { cursor?: string | null; limit?: number; organization?: string | null } | null,
  ): { events: AuditRecord[]; cursor: string | null };
  claimShares(id: string, options: { subject: string; source?: string }): { claimed: number; indexing: boolean };
}

/** The main target of a session with the server, as the server implements it. A stub of it returns promises. */
export interface ShareRpc {
  createShare(sessionID: string, initialData?: SyncData[] | null, options?: CreateOptions | null): ShareCredentials;
  syncShare(shareID: string, secret: string | null, data: SyncData[]): SyncResult;
  deleteShare(shareID: string, secret?: string | null): { success: boolean };
  updateShare(shareID: string, secret: string | null, options?: AccessOptions | null): AccessSettings;
  createViewToken(shareID: string, secret: string | null, options?: ViewTokenOptions | null): ViewToken;
  unlockShare(shareID: string, password: string): ViewToken;
  getShare(shareID: string): AgentSession;
  getShareMetadata(shareID: string): SessionIndex;
  listShares(options?: ListOptions | null): SessionPage;
  searchShares(options: SearchOptions): SearchPage;
  subscribe(shareID: string, onEvent: (event: ShareEvent) => void, fromSyncCount?: number): Subscription;
  watch(shareID: string, fromSyncCount?: number): ReadableStream<ShareEvent>;
  openShare(shareID: string, secret: string | null): Share;
  authenticate(token: string): ShareRpc;
  keys(): ApiKeys;
  vault(): Vault;
  workspaces(): Workspaces;
  agents(): Agents;
  users(): Users;
  /** Of a user, with the account, and what it and its organization use. */
  whoami(): Identity & { user?: Account; usage?: { user: Usage; organization: Usage } };
  probeValue(value: { when: Date; bytes: Uint8Array; nested?: unknown }): {
    when: string | null;
    bytes: number[];
    size: number;
    nested?: unknown;
  };
  probeCallback(callback: (text: string) => unknown): unknown;
}
