import type { AccessOptions } from "@rpcshare/share-next";
import type { PluginOptions } from "./hooks.js";

export interface Settings {
  /** Of the server, such as `https://share.example`. */
  readonly url: string;
  readonly token: string | undefined;
  /** Whether new sessions are shared unasked; undefined: as opencode's own configuration says. */
  readonly auto: boolean | undefined;
  /** Who may read what is shared, and for how long. */
  readonly access: AccessOptions | undefined;
  /** Where the credentials of shares are kept. */
  readonly directory: string | undefined;
}

/**
 * What the plugin's options say and, where they are silent, the environment. Undefined if no server is named.
 *
 * Throws if there is a server whose settings are no good.
 */
export function readSettings(options: PluginOptions, env: NodeJS.ProcessEnv): Settings | undefined {
  const url = text(options, "url") ?? (env["RPCSHARE_URL"] || undefined);
  if (url === undefined || url === "") return undefined;
  if (!/^https?:\/\/[^/]/.test(url)) throw new TypeError("the URL of the share server must begin with http:// or https://");
  return {
    url: url.replace(/\/+$/, ""),
    token: text(options, "token") ?? (env["RPCSHARE_TOKEN"] || undefined),
    auto: flag(options["auto"] ?? env["RPCSHARE_AUTO"]),
    access: accessOptions(options),
    directory: text(options, "directory") ?? (env["RPCSHARE_DIRECTORY"] || undefined),
  };
}

function accessOptions(options: PluginOptions): AccessOptions | undefined {
  const access: AccessOptions = {};
  const visibility = text(options, "visibility");
  if (visibility === "link" || visibility === "private") access.visibility = visibility;
  else if (visibility !== undefined) throw new TypeError("the option visibility of the share plugin must be link or private");
  const expiresIn = text(options, "expiresIn");
  if (expiresIn !== undefined) access.expiresIn = expiresIn;
  return Object.keys(access).length > 0 ? access : undefined;
}

function text(options: PluginOptions, name: string): string | undefined {
  const value = options[name];
  if (value === undefined) return undefined;
  if (typeof value !== "string") throw new TypeError(`the option ${name} of the share plugin must be a string`);
  return value.trim();
}

function flag(value: unknown): boolean | undefined {
  if (value === undefined || value === "") return undefined;
  return value === true || value === "1" || value === "true";
}
