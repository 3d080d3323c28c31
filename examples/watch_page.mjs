// A web page of one's own that watches a share, with @rpcshare/browser.
//
//     npm install @rpcshare/browser
//     node examples/watch_page.mjs http://127.0.0.1:8787/share/9eiXoPTK
//
// It prints where the page is.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

const link = process.argv[2];
const module = new URL(import.meta.resolve("@rpcshare/browser"));

const page = `<!doctype html><meta charset="utf-8"><title>A share</title><h1></h1><pre></pre>
<script type="module">
import { watch } from "/index.js";

watch(${JSON.stringify(link).replaceAll("<", "\\u003c")}, {
  onChange(share) {
    document.querySelector("h1").textContent = share.session.title;
    document.querySelector("pre").textContent = share.parts.map((part) => part.text ?? "").join("\\n\\n");
  },
});
</script>`;

const server = createServer(async (request, response) => {
  if (request.url === "/") {
    response.writeHead(200, { "content-type": "text/html" }).end(page);
  } else if (/^\/\w+\.js$/.test(request.url)) {
    const file = new URL(`.${request.url}`, module);
    response.writeHead(200, { "content-type": "text/javascript" }).end(await readFile(file));
  } else {
    response.writeHead(404).end();
  }
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
