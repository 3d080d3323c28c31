// npm's capnweb as a client of `POST /rpc`: node batch_client.mjs URL TOKEN SCENARIO
// Prints one JSON object: what the scenario returned, and the bodies of all requests and answers.
import { newHttpBatchRpcSession } from "capnweb";

const [url, token, scenario] = process.argv.slice(2);
const bodies = [];

const fetchOfNode = globalThis.fetch;
globalThis.fetch = async (request, init) => {
  const answer = await fetchOfNode(request, init);
  bodies.push({ sent: init.body, received: await answer.clone().text() });
  return answer;
};

const batch = (credential = token) =>
  newHttpBatchRpcSession(new Request(`${url}/rpc`, { headers: { Authorization: `Bearer ${credential}` } }));

const failure = async (promise) => {
  try {
    return { value: await promise };
  } catch (error) {
    return { name: error.name, message: error.message, code: error.code };
  }
};

const scenarios = {
  async pipelined() {
    const api = batch();
    const share = api.createShare("ses_npm_batch_000001");
    const synced = api.syncShare(share.id, share.secret, [{ type: "message", data: { id: "msg_1" } }]);
    return await Promise.all([share, synced]);
  },

  async values() {
    const when = new Date(1234567890123);
    return await batch().probeValue({ when, bytes: new Uint8Array([1, 255]), nested: [[]] });
  },

  async errors() {
    const api = batch();
    return await Promise.all([failure(api.getShare("nowhere0")), failure(api.noSuchMethod()), api.whoami()]);
  },

  async callback() {
    const api = batch();
    const heard = [];
    const called = await failure(api.probeCallback((text) => void heard.push(text)));
    return { called, heard };
  },

  async capability() {
    const made = await batch().createShare("ses_npm_batch_000002");
    const api = batch();
    const share = api.openShare(made.id, made.secret);
    return await share.sync([{ type: "message", data: { id: "msg_1" } }]);
  },

  async mapped() {
    const made = await batch().createShare("ses_npm_batch_000003");
    return await batch().listShares({ query: made.id }).sessions.map((found) => ({ id: found.id }));
  },

  async again() {
    const api = batch();
    await api.whoami();
    return await failure(api.whoami());
  },

  async refused() {
    return await failure(batch("wrong").whoami());
  },
};

const result = await scenarios[scenario]();
console.log(JSON.stringify({ result, bodies }));
