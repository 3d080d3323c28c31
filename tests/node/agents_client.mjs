// npm's capnweb as a client of agents: node agents_client.mjs URL TOKEN SCENARIO WORKSPACE
// Prints one JSON object: what the scenario returned, and every frame in the order in which it passed.
import { newWebSocketRpcSession } from "capnweb";
import WebSocket from "ws";

globalThis.WebSocket = WebSocket; // capnweb expects it there; Node has one of its own from 22 on
const [url, token, scenario, workspace] = process.argv.slice(2);

const failure = async (promise) => {
  try {
    await promise;
    return null;
  } catch (error) {
    return { message: error.message, code: error.code };
  }
};
const isEnd = (event) => event.type === "turn" && event.state === "ended";
const plain = (event) => JSON.parse(JSON.stringify(event, (key, value) => (key === "approval" ? typeof value : value)));

const scenarios = {
  async pipelined(api) {
    const agent = api.agents().start({ workspace });
    const sent = agent.send("hello");
    const watched = agent.watch();
    const reader = (await watched).getReader();
    const events = [];
    for (;;) {
      const { value } = await reader.read();
      events.push(plain(value));
      if (isEnd(value)) break;
    }
    await reader.cancel();
    return { sent: await sent, events, info: await agent.info() };
  },

  async approvedInAnEvent(api) {
    const agent = await api.agents().start({ workspace, prompt: "run ls" });
    const reader = (await agent.watch()).getReader();
    const events = [];
    let answered;
    for (;;) {
      const { value } = await reader.read();
      events.push(plain(value));
      if (value.type === "approval" && value.approval && !answered) answered = await value.approval.answer("once");
      if (isEnd(value)) break;
    }
    await reader.cancel();
    return { events, answered };
  },

  async approvedInACallback(api) {
    const agent = await api.agents().start({ workspace, prompt: "run ls" });
    const events = [];
    const done = Promise.withResolvers();
    const subscription = await agent.subscribe(async (event) => {
      events.push(plain(event));
      // What a callback is given lasts as long as the call, unless it is dup()ed.
      if (event.approval) await event.approval.answer("reject", "not here");
      if (isEnd(event)) done.resolve();
    });
    await done.promise;
    subscription[Symbol.dispose]();
    return { events, approvals: (await agent.approvals()).length };
  },

  async asked(api) {
    const agent = await api.agents().start({ workspace });
    const events = [];
    for await (const event of await agent.ask("hello")) events.push(plain(event));
    return { events };
  },

  async everyMethod(api) {
    const agents = api.agents();
    const agent = await agents.start({ workspace, title: "Mine", budget: { turns: 5 } });
    const info = await agent.info();
    await agent.send("wait", { id: "msg_first" });
    const second = await agent.send("later", { delivery: "queue", attachments: [{ url: "data:text/plain,a", mimeType: "text/plain" }] });
    const queue = await agent.queue();
    const unqueued = await agent.unqueue(second.messageID);
    await agent.abort();
    await agent.pause();
    await agent.send("run ls");
    const paused = (await agent.info()).status;
    await agent.resume({ budget: { turns: 9 } });
    let approvals;
    do {
      approvals = await agent.approvals();
      await new Promise((resolve) => setTimeout(resolve, 20));
    } while (approvals.length === 0);
    const link = await approvals[0].approval.link();
    const same = await agent.approval(approvals[0].id).info();
    const answered = await approvals[0].approval.answer("always");
    const twice = await failure(approvals[0].approval.answer("once"));
    const todo = await agent.todo();
    const diff = await agent.diff();
    const listed = await agents.list({ workspace, limit: 200 });
    const files = await agent.files().list();
    const terminated = await agent.terminate();
    const gone = await failure(agent.send("more"));
    return {
      info, queue, unqueued, paused, link, same, answered, twice, todo, diff, files, terminated, gone,
      listed: listed.agents.map((each) => each.id),
      unknown: await failure(agents.get("ses_0")),
      wrong: await failure(agents.start({ workspace, model: "none/none" })),
      misspelt: await failure(agents.start({ workspace, promt: "x" })),
      status: await failure(agents.list({ status: "asleep" })),
      cursor: await failure(agent.watch("x")),
    };
  },
};

const frames = [];
const socket = new WebSocket(url, { headers: { Authorization: `Bearer ${token}` } });
const send = socket.send.bind(socket);
socket.send = (data, ...rest) => {
  frames.push(["out", String(data)]);
  return send(data, ...rest);
};
socket.addEventListener("message", ({ data }) => frames.push(["in", String(data)]));
const api = newWebSocketRpcSession(socket);
const result = await scenarios[scenario](api);
console.log(JSON.stringify({ result, frames }));
api[Symbol.dispose]();
socket.close();
