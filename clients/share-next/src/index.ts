export { ShareNext, type CreateOptions, type Options } from "./share-next.js";
export type {
  Details,
  Host,
  HostEvents,
  HostSessions,
  Logger,
  Loose,
  ServerConfig,
  SessionListener,
  ShareRecord,
  ShareStore,
} from "./host.js";
export { chosenModel, tell, type OpencodeEvent } from "./opencode-events.js";
export { Unreachable } from "./failure.js";
export type * from "@rpcshare/types";
