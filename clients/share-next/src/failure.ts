// What can become of a call.

/** The server cannot be reached, or its answer did not come. */
export class Unreachable extends Error {
  override readonly name = "Unreachable";

  /**
   * @param mayHaveRun Whether the call may have been carried out all the same.
   */
  constructor(message: string, readonly mayHaveRun: boolean) {
    super(message);
  }
}

/** The `code` of what the server answered, or undefined for a failure of another kind. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What to do about a call that failed. */
export type Remedy =
  /** Try again later. */
  | "retry"
  /** The data are at fault: send them in smaller pieces, and drop the one that is refused. */
  | "split"
  /** The share's secret is another: create the share again, which tells it. */
  | "recreate"
  /** The share has been removed on the server. */
  | "removed";

export function remedyFor(error: unknown): Remedy {
  switch (codeOf(error)) {
    case "INVALID_ARGUMENT":
    case "PAYLOAD_TOO_LARGE":
      return "split";
    case "INVALID_SECRET":
      return "recreate";
    case "SHARE_NOT_FOUND":
    case "SHARE_GONE":
      return "removed";
    default:
      // Unreachable, busy, out of storage, or a token that is refused and may be replaced.
      return "retry";
  }
}

/** Whether a call that failed may have been carried out. */
export function mayHaveRun(error: unknown): boolean {
  if (error instanceof Unreachable) return error.mayHaveRun;
  const code = codeOf(error);
  return code === undefined || code === "STORAGE_UNAVAILABLE" || code === "INTERNAL";
}
