// What npm's capnweb sends for .map(), one recording for each of the functions that test_npm_map_recordings.py has too.
import { RpcSession, RpcStub } from "capnweb";

function record(use) {
  const sent = [];
  const transport = { send: (text) => void sent.push(JSON.parse(text)), receive: () => new Promise(() => {}) };
  use(new RpcSession(transport).getRemoteMain());
  return sent;
}

const functions = {
  identity: (x) => x,
  property: (x) => x.owner.name,
  constant: () => 5,
  literals: () => ({ list: [1, "two", null, [true]], when: new Date(1757214689123), big: 5n, none: undefined }),
  object: (x) => ({ id: x.id, both: [x, x.name] }),
  call: (x) => x.describe("short", { deep: [x.id] }),
  chained: (x) => x.owner().rename("a").name,
  callOfACapture: (x, api) => api.users.nameOf(x.id),
  captureAsAnArgument: (x, api, other) => x.compare(other),
  propertyOfACaptureAsAnArgument: (x, api, other) => x.compare(other.first),
  captureAsTheResult: (x, api, other) => other,
  nested: (x) => x.items.map((item) => item.name),
  nestedInAnObject: (x) => ({ names: x.items.map((item) => ({ name: item.name, of: x.id })) }),
  nestedWithACapture: (x, api) => x.items.map((item) => api.join(x.id, item)),
  nestedOverACapture: (x, api, other) => other.list.map((item) => api.pair(x, item)),
  nestedOverACall: (x) => x.items(10).map((item) => item.price),
  nestedThrice: (x, api) => x.rows.map((row) => row.cells.map((cell) => api.cell(x.id, row.id, cell))),
};

const recordings = {};
for (const [name, apply] of Object.entries(functions)) {
  recordings[name] = record((api) => {
    const other = api.other();
    api.list(7).map((x) => apply(x, api, other));
  });
}
recordings.ofAProperty = record((api) => api.list(7).rows.map((x) => x.id));
recordings.withACallback = record((api) => {
  const callback = new RpcStub((value) => value);
  api.list(7).map((x) => callback(x.id));
});
console.log(JSON.stringify(recordings));
