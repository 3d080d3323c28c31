export namespace Config {
  export interface Info {
    share?: "manual" | "auto" | "disabled";
    enterprise?: { url?: string };
  }

  export async function get(): Promise<Info> {
    return { enterprise: { url: process.env["FORK_URL"]! } };
  }
}
