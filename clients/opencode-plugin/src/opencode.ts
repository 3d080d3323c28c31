// opencode, as a host of the sharing client.
import {
  chosenModel,
  tell,
  type Details,
  type Host,
  type Logger,
  type OpencodeEvent,
  type ServerConfig,
  type SessionListener,
  type ShareStore,
} from "@rpcshare/share-next";
import type { Client } from "./hooks.js";

export class Opencode implements Host {
  #listener: SessionListener | undefined;
  #models: Promise<ReadonlyMap<string, Model>> | undefined;
  #lastChange = 0;
  readonly logger: Logger;

  constructor(
    private readonly client: Client,
    private readonly server: ServerConfig,
    readonly store: ShareStore,
    private readonly screen: Screen,
  ) {
    this.logger = {
      info: (message, details) => this.#log("info", message, details),
      warn: (message, details) => {
        this.#log("warn", message, details);
        this.screen.show(`Sharing: ${message}`, "warning");
      },
      error: (message, details) => {
        this.#log("error", message, details);
        this.screen.show(`Sharing: ${message}`, "error");
      },
    };
  }

  readonly events = {
    subscribe: (listener: SessionListener) => {
      this.#listener = listener;
      return () => {
        this.#listener = undefined;
      };
    },
  };

  readonly sessions = {
    session: async (id: string) => dataOf(await this.client.session.get({ path: { id } })),
    messages: async (id: string) => dataOf(await this.client.session.messages({ path: { id } })),
    diff: async (id: string) => dataOf(await this.client.session.diff({ path: { id } })),
    models: async (id: string) => {
      const messages = dataOf(await this.client.session.messages({ path: { id } }));
      const models = await this.#allModels();
      const chosen = messages.flatMap(({ info }) => (info.role === "user" ? [key(info.model)] : []));
      return [...new Set(chosen)].flatMap((each) => models.get(each) ?? []);
    },
  };

  config(): ServerConfig {
    return this.server;
  }

  /** Passes on an event of opencode's. */
  heard(event: OpencodeEvent): void {
    const listener = this.#listener;
    if (listener === undefined) return;
    this.#lastChange = Date.now();
    tell(listener, event);
    const chosen = chosenModel(event);
    if (chosen !== undefined) void this.#tellModel(listener, chosen);
  }

  /** Milliseconds since opencode last told of something. */
  get quietFor(): number {
    return Date.now() - this.#lastChange;
  }

  async #tellModel(listener: SessionListener, chosen: { sessionID: string } & ModelName): Promise<void> {
    try {
      const model = (await this.#allModels()).get(key(chosen));
      if (model !== undefined) listener.changed(chosen.sessionID, [{ type: "model", data: [model] }]);
    } catch (error) {
      this.logger.error("a model cannot be shared", { error: String(error) });
    }
  }

  #allModels(): Promise<ReadonlyMap<string, Model>> {
    this.#models ??= this.client.config.providers().then((answer) => {
      const models = dataOf(answer).providers.flatMap((provider) => Object.values(provider.models));
      return new Map(models.map((model) => [key({ providerID: model.providerID, modelID: model.id }), model]));
    });
    this.#models.catch(() => (this.#models = undefined));
    return this.#models;
  }

  #log(level: "info" | "warn" | "error", message: string, details: Details = {}): void {
    const extra = Object.fromEntries(Object.entries(details).filter(([, value]) => value !== undefined));
    // Where opencode's log cannot be written, there is nobody left to tell.
    this.client.app.log({ body: { service: "rpcshare", level, message, extra } }).catch(() => undefined);
  }
}

/** Where the user looks: a toast, or standard error where opencode has no screen. */
export class Screen {
  constructor(
    private readonly client: Client,
    private readonly isPlain: boolean,
  ) {}

  show(message: string, variant: "info" | "warning" | "error" = "info"): void {
    if (this.isPlain) process.stderr.write(`${message}\n`);
    else this.client.tui.showToast({ body: { message, variant } }).catch(() => undefined); // it is in the log, too
  }
}

interface ModelName {
  readonly providerID: string;
  readonly modelID: string;
}

type Model = object;

function key({ providerID, modelID }: ModelName): string {
  return JSON.stringify([providerID, modelID]);
}

function dataOf<T>(answer: { data: T; error?: unknown }): NonNullable<T> {
  if (answer.data === undefined || answer.data === null) {
    throw new Error(`opencode refuses: ${JSON.stringify(answer.error)}`);
  }
  return answer.data;
}
