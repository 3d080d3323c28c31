// The plain object.
import assert from "node:assert/strict";
import { it } from "node:test";
import { Merging } from "../dist/share.js";

const message = (id, text) => ({ type: "message", data: { id, text } });

it("replaces by id, in the order of first appearance", () => {
  const merging = new Merging();
  merging.apply({ type: "snapshot", shareID: "x", syncCount: 1, data: [message("a", 1), message("b", 1)] });
  merging.apply({ type: "sync", shareID: "x", syncCount: 2, data: [message("a", 2), message("c", 1)] });
  assert.deepEqual(
    merging.share.messages.map(({ id, text }) => `${id}${text}`),
    ["a2", "b1", "c1"],
  );
  assert.equal(merging.share.syncCount, 2);
});

it("tells messages from parts, and models by their provider", () => {
  const merging = new Merging();
  const model = (providerID) => ({ type: "model", data: [{ id: "a", providerID }] });
  const part = { type: "part", data: { id: "a" } };
  const data = [message("a", 1), part, model("acme"), model("other"), model("acme")];
  merging.apply({ type: "sync", shareID: "x", syncCount: 1, data });
  const { messages, parts, models } = merging.share;
  assert.deepEqual([messages.length, parts.length, models.length], [1, 1, 2]);
});

it("appends diffs, and starts over with a snapshot, in the same object", () => {
  const merging = new Merging();
  const { share } = merging;
  const sync = { type: "sync", shareID: "x", syncCount: 1, data: [{ type: "session_diff", data: [{ file: "a" }] }] };
  merging.apply(sync);
  merging.apply(sync);
  assert.equal(share.diffs.length, 2);
  merging.apply({ type: "snapshot", shareID: "x", syncCount: 3, data: [{ type: "session", data: { title: "t" } }] });
  assert.deepEqual(share, { session: { title: "t" }, messages: [], parts: [], diffs: [], models: [], syncCount: 3 });
});
