"""A provider of a model whose answers are scripted, and which knows what it was asked.

It answers by the last ``[scenario:NAME]`` of the conversation: each entry of a scenario is one step of a
turn. A string is text, a list is calls of tools, a number is an HTTP status.
"""

import asyncio
import json
import re
from typing import Any, Self

__all__ = ["SCENARIOS", "ScriptedModel", "tool"]


def tool(name: str, **arguments: object) -> dict[str, object]:
    """Return a call of a tool."""
    return {"name": name, "arguments": json.dumps(arguments)}


QUESTION = {
    "question": "Which colour?",
    "header": "Colour",
    "options": [{"label": "Red", "description": "warm"}, {"label": "Blue", "description": "cold"}],
}

SCENARIOS: dict[str, list[Any]] = {
    "hello": ["Hello from the scripted model."],
    "edit": [
        [tool("write", filePath="/workspace/app.py", content='print("hi")\n')],
        [tool("read", filePath="/workspace/app.py")],
        [tool("bash", command="cat app.py; echo done", description="Show the file")],
        "I wrote app.py.",
    ],
    "ask": [
        [tool("bash", command="echo permitted > permitted.txt", description="Write a file")],
        "That was permitted, or not.",
    ],
    "twice": [
        [tool("bash", command="echo one >> twice.txt", description="Write")],
        [tool("bash", command="echo two >> twice.txt", description="Write")],
        "Twice.",
    ],
    "question": [[tool("question", questions=[QUESTION])], "So be it."],
    "slow": [
        [tool("bash", command="echo began > slow.txt; sleep 30; echo over >> slow.txt", description="Wait")],
        "Over.",
    ],
    "task": [
        [tool("task", description="Look", prompt="Say hello [scenario:hello]", subagent_type="general")],
        "The sub-agent is done.",
    ],
    "todo": [
        [
            tool(
                "todowrite",
                todos=[{"content": "Write it", "status": "pending", "priority": "high", "id": "1"}],
            )
        ],
        "There is something to do.",
    ],
    "refused": [400],
    "long": [" ".join(f"word{number}" for number in range(120))],
}


class ScriptedModel:
    """An OpenAI-compatible server on loopback."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        """The bodies of all requests."""
        self.headers: list[dict[str, str]] = []
        self.delay = 0.0
        """Seconds between two words."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def prompts(self) -> list[str]:
        """Return the last message of the user's in each request that is not for a title."""
        found = []
        for body in self.asked:
            if not _is_title(body):
                users = [each for each in body["messages"] if each["role"] == "user"]
                found.append(_text(users[-1]))
        return found

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(re.findall(r"(?m)^([^:\r\n]+): *([^\r\n]*)", head.lower()))
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.asked.append(body)
                self.headers.append(headers)
                await self._answer(body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        step = "A title" if _is_title(body) else _step(body)
        if isinstance(step, int):
            error = json.dumps(
                {"error": {"message": "refused by the script", "type": "invalid_request_error"}}
            )
            head = f"HTTP/1.1 {step} Bad\r\nContent-Type: application/json\r\nContent-Length: {len(error)}"
            writer.write(f"{head}\r\n\r\n{error}".encode())
            await writer.drain()
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await self._say(writer, step)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _say(self, writer: asyncio.StreamWriter, step: object) -> None:
        def send(delta: dict[str, Any], finish: str | None = None, usage: object = None) -> None:
            chunk = {
                "id": "c1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "scripted",
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            }
            if usage is not None:
                chunk["usage"] = usage
            data = f"data: {json.dumps(chunk)}\n\n".encode()
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        if isinstance(step, list):
            for number, each in enumerate(step):
                call = {
                    "index": number,
                    "id": f"call_{len(self.asked)}_{number}",
                    "type": "function",
                    "function": each,
                }
                send({"role": "assistant", "tool_calls": [call]})
            send({}, "tool_calls", {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050})
        else:
            words = str(step).split(" ")
            for number, word in enumerate(words):
                send({"role": "assistant", "content": word if number == 0 else f" {word}"})
                if self.delay:
                    await writer.drain()
                    await asyncio.sleep(self.delay)
            usage = {
                "prompt_tokens": 1200,
                "completion_tokens": len(words),
                "total_tokens": 1200 + len(words),
            }
            send({}, "stop", usage)
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n")
        await writer.drain()


def _is_title(body: dict[str, Any]) -> bool:
    return "title generator" in json.dumps(body["messages"])


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else " ".join(str(each.get("text", "")) for each in content)


def _step(body: dict[str, Any]) -> object:
    users = [_text(each) for each in body["messages"] if each["role"] == "user"]
    names = re.findall(r"\[scenario:(\w+)\]", users[-1]) or ["hello"]
    steps = SCENARIOS[names[-1]]
    done = 0
    for message in reversed(body["messages"]):
        if message["role"] == "user":
            break
        done += message["role"] == "assistant"
    return steps[min(done, len(steps) - 1)]
