// An OpenAI-compatible chat endpoint with scripted answers, so that a real opencode runs offline.
//
//     PROJ=/path/of/a/scratch/project node fake_llm.mjs [PORT]
//
// It prints the port that it listens on. It answers by the last `[scenario:NAME]` in the conversation: each entry of a
// scenario is one step of a turn. A string is text, a list is tool calls, `{ status, body }` is a provider's error,
// `{ reasoning, text }` is thinking before text.
import http from "node:http";

const project = process.env.PROJ;
const call = (tool, args) => ({ tool, args });

const SCENARIOS = {
  hello: [
    "Hello from the fake model. Here is **markdown**, `inline code`, a [link](https://example.com) and\n\n" +
      "```python\ndef add(a: int, b: int) -> int:\n    return a + b\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
  ],
  edit: [
    [call("write", { filePath: `${project}/app.py`, content: 'def greet(name):\n    return "hi " + name\n\n\nprint(greet("x"))\n' })],
    [call("read", { filePath: `${project}/app.py` })],
    [call("edit", { filePath: `${project}/app.py`, oldString: '"hi " + name', newString: 'f"hello {name}"' })],
    [call("bash", { command: "ls -la; echo done", description: "List the files" })],
    [
      call("todowrite", {
        todos: [
          { content: "Write app", status: "completed", priority: "high", id: "1" },
          { content: "Add tests", status: "pending", priority: "medium", id: "2" },
        ],
      }),
    ],
    "I wrote `app.py` and changed the greeting to an f-string.",
  ],
  tools: [
    [
      call("bash", { command: "for i in 1 2 3; do echo line $i; sleep 0.2; done", description: "Slow output" }),
      call("glob", { pattern: "**/*.py" }),
    ],
    [call("bash", { command: "exit 3", description: "Fail" })],
    [call("read", { filePath: `${project}/missing.txt` })],
    "Two tools failed as expected; the rest worked.",
  ],
  long: [
    Array.from({ length: 600 }, (_, i) => `Sentence number ${i} of a long streamed answer, with some words.`).join(" "),
  ],
  unicode: [
    "Emoji 👩‍👩‍👧‍👦 🇯🇵, RTL שלום عربى, combining e\u0301, zero\u200bwidth, math ∑∫√, CJK 漢字かな, surrogate 𝄞, quotes “ ”.",
  ],
  fail: [
    {
      status: 400,
      body: {
        error: {
          message: "context length exceeded",
          type: "invalid_request_error",
          code: "context_length_exceeded",
        },
      },
    },
  ],
  reason: [{ reasoning: "First I think about the question. Then I decide.", text: "The answer is 42." }],
};

function scenarioOf(messages) {
  const names = [...JSON.stringify(messages).matchAll(/\[scenario:(\w+)\]/g)];
  return names.at(-1)?.[1] ?? "hello";
}

/** How many times the model has answered since the user's last message. */
function stepOf(messages) {
  return messages.slice(messages.findLastIndex(({ role }) => role === "user") + 1).filter(isAnswer).length;
}

const isAnswer = ({ role }) => role === "assistant";

async function answer(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const { messages = [] } = JSON.parse(Buffer.concat(chunks).toString() || "{}");
  const isTitle = JSON.stringify(messages).includes("title generator");
  const name = scenarioOf(messages);
  const steps = SCENARIOS[name] ?? SCENARIOS.hello;
  let step = isTitle ? `Session about ${name}` : steps[Math.min(stepOf(messages), steps.length - 1)];
  if (step.status !== undefined) {
    response.writeHead(step.status, { "content-type": "application/json" }).end(JSON.stringify(step.body));
    return;
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  const id = `chatcmpl-${Date.now()}`;
  const send = (delta, finish_reason = null, usage = undefined) => {
    const choices = [{ index: 0, delta, finish_reason }];
    const chunk = { id, object: "chat.completion.chunk", created: 1, model: "fake", choices, usage };
    response.write(`data: ${JSON.stringify(chunk)}\n\n`);
  };
  if (step.reasoning !== undefined) {
    for (const word of step.reasoning.split(" ")) send({ role: "assistant", reasoning_content: `${word} ` });
    step = step.text;
  }
  if (Array.isArray(step)) {
    send({ role: "assistant", content: "Let me do that. " });
    step.forEach(({ tool, args }, index) => {
      const fn = { name: tool, arguments: JSON.stringify(args) };
      send({ tool_calls: [{ index, id: `call_${Date.now()}${index}`, type: "function", function: fn }] });
    });
    send({}, "tool_calls", { prompt_tokens: 1000, completion_tokens: 50, total_tokens: 1050 });
  } else {
    const words = step.split(" ");
    for (const [index, word] of words.entries()) {
      send({ role: "assistant", content: index < words.length - 1 ? `${word} ` : word });
      if (name === "long" && index % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    }
    send({}, "stop", { prompt_tokens: 1200, completion_tokens: words.length, total_tokens: 1200 + words.length });
  }
  response.end("data: [DONE]\n\n");
}

const server = http.createServer(answer);
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => console.log(server.address().port));
