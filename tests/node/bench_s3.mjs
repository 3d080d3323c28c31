// An S3 server that keeps objects in memory and answers each request DELAY milliseconds later:
//   node bench_s3.mjs DELAY        prints its port when it is ready
// It knows what rpcshare's store asks for, takes any signature, and decides conditions when a request has arrived
// whole, as S3 does: of two writers with If-None-Match one is refused.
import { createHash } from "node:crypto";
import { createServer } from "node:http";

const delay = Number(process.argv[2]);
const objects = new Map(); // key → { body, etag }

const escaped = (text) => text.replace(/[<&>]/g, (c) => `&#${c.charCodeAt(0)};`);
const failure = (code) => `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`;

function put(key, body, headers) {
  const old = objects.get(key);
  if (headers["if-none-match"] === "*" && old) return [412, failure("PreconditionFailed")];
  const match = headers["if-match"];
  if (match && !old) return [404, failure("NoSuchKey")];
  if (match && match !== old.etag) return [412, failure("PreconditionFailed")];
  const etag = `"${createHash("md5").update(body).digest("hex")}"`;
  objects.set(key, { body, etag });
  return [200, "", { etag }];
}

function list(query) {
  const prefix = query.get("prefix") ?? "";
  const after = query.get("continuation-token") ?? query.get("start-after") ?? "";
  const most = Number(query.get("max-keys") ?? 1000);
  const keys = [...objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
  const page = keys.slice(0, most);
  const rows = page.map((key) => {
    const { body, etag } = objects.get(key);
    return `<Contents><Key>${escaped(key)}</Key><ETag>${escaped(etag)}</ETag><Size>${body.length}</Size></Contents>`;
  });
  const more = keys.length > page.length;
  const next = more ? `<NextContinuationToken>${escaped(page.at(-1))}</NextContinuationToken>` : "";
  return [200, `<?xml version="1.0"?><ListBucketResult><IsTruncated>${more}</IsTruncated>${next}${rows.join("")}</ListBucketResult>`];
}

function answer(request, body) {
  const url = new URL(request.url, "http://s3");
  const key = decodeURIComponent(url.pathname).split("/").slice(2).join("/");
  const { method, headers } = request;
  if (method === "PUT") return put(key, body, headers);
  if (method === "DELETE") return objects.delete(key), [204, ""];
  if (method === "POST") {
    for (const [, found] of body.toString().matchAll(/<Key>([^<]*)<\/Key>/g)) objects.delete(found);
    return [200, `<?xml version="1.0"?><DeleteResult></DeleteResult>`];
  }
  if (!key) return list(url.searchParams);
  const found = objects.get(key);
  return found ? [200, found.body, { etag: found.etag }] : [404, failure("NoSuchKey")];
}

const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const [status, text, headers = {}] = answer(request, Buffer.concat(parts));
    const body = Buffer.from(text);
    setTimeout(() => {
      response.writeHead(status, { "content-length": body.length, ...headers });
      response.end(request.method === "HEAD" ? undefined : body);
    }, delay);
  });
});
server.keepAliveTimeout = 60_000;
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
