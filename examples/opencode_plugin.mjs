// Run opencode with @rpcshare/opencode-plugin, and share the session.
//
// Run it against `rpcshare serve`, with the token in `.rpcshare/admin-token`:
//
//     npm install @rpcshare/opencode-plugin opencode-ai
//     RPCSHARE_TOKEN=… node examples/opencode_plugin.mjs "Explain this project"

import { spawn } from "node:child_process";
import { once } from "node:events";

// The same belongs into an opencode.json, with the plugin's name alone where opencode is to install it.
const plugin = import.meta.resolve("@rpcshare/opencode-plugin");
const url = process.env.RPCSHARE_URL ?? "http://127.0.0.1:8787";
const configured = JSON.parse(process.env.OPENCODE_CONFIG_CONTENT ?? "{}");
const config = { ...configured, plugin: [[plugin, { url, token: process.env.RPCSHARE_TOKEN }]] };

const opencode = spawn("opencode", ["run", "--share", process.argv[2]], {
  stdio: ["ignore", "inherit", "inherit"],
  env: { ...process.env, OPENCODE_CONFIG_CONTENT: JSON.stringify(config) },
});
[process.exitCode] = await once(opencode, "exit");
