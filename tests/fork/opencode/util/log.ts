export namespace Log {
  export interface Logger {
    info(message?: unknown, extra?: Record<string, unknown>): void;
    warn(message?: unknown, extra?: Record<string, unknown>): void;
    error(message?: unknown, extra?: Record<string, unknown>): void;
  }

  /** A log that goes to standard error, a JSON object a line. */
  export function create(tags: Record<string, unknown>): Logger {
    const write = (level: string) => (message?: unknown, extra?: Record<string, unknown>) => {
      console.error(JSON.stringify({ level, ...tags, message, ...extra }));
    };
    return { info: write("info"), warn: write("warn"), error: write("error") };
  }
}
