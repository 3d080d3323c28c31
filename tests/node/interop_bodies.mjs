// Values that are sent as streams, and others of the Fetch standard; tests/interop has the same by these names.
const latin = (text) => new TextEncoder().encode(text);

export const bodies = {
  blob: () => new Blob(["hello"], { type: "Text/Plain" }),
  "empty blob": () => new Blob([]),
  "long blob": () => new Blob([new Uint8Array(150_000).fill(7)], { type: "application/octet-stream" }),
  request: () => new Request("https://example.com/a?b=c"),
  "request with headers": () =>
    new Request("https://example.com/", { method: "DELETE", headers: { "X-B": "2", "x-a": "1" }, redirect: "manual" }),
  "request with a body": () =>
    new Request("https://example.com/", { method: "POST", body: latin("hello"), headers: [["x-a", "1"]] }),
  response: () => new Response(null),
  "response with a body": () => new Response(latin("hello"), { status: 201, statusText: "Created" }),
  "response without content": () => new Response(null, { status: 204, headers: { "x-a": "1" } }),
};
