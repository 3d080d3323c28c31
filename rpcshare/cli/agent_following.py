"""Following an agent on a terminal: its words as they come, its tools, and what it asks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import Any

import click

from rpcshare.cli.exit_status import ExitStatus
from rpcshare.cli.terminal import json_text, printable_text, say, standard_output
from rpcshare.client import Agent, AgentEvent
from rpcshare.errors import ShareError

__all__ = ["Follower"]

_OVER = ("terminated", "failed", "interrupted")
_REPLIES = {"y": "once", "a": "always", "n": "reject"}


class Follower:
    """Prints what an agent says and does, and has what it asks answered."""

    def __init__(self, agent: Agent, *, as_json: bool, allows: bool) -> None:
        """Follow ``agent``; ``allows``: whatever it asks for is allowed, once each."""
        self._agent = agent
        self._as_json = as_json
        self._allows = allows
        self._out = standard_output()
        self._roles: dict[str, str] = {}  # of messages
        self._texts: dict[str, int] = {}  # how much of a part has been printed
        self._tools: dict[str, str] = {}  # how far a tool was
        self._in_line = False
        self._heard: set[str] = set()  # requests
        self._waiting: list[dict[str, Any]] = []  # for who sits at the terminal
        self._given: list[list[str]] = []  # to the first questions of the first of them
        self._is_asking = False
        self._answering: set[asyncio.Task[None]] = set()
        self._interrupts = 0
        self._has_failed = False  # the turn that ended last

    async def follow(
        self,
        cursor: str | None,
        *,
        ends_idle: bool = False,
        ends_with: str | None = None,
        is_new: bool = False,
    ) -> int:
        """Print events behind a cursor; return the exit status.

        Args:
            cursor: None: only what is said from now on is printed.
            ends_idle: end when the agent has nothing to do.
            ends_with: a message with the end of whose turn this ends.
            is_new: print what has been said as well.
        """
        is_new = is_new or cursor is not None
        task = asyncio.current_task()
        with self._aborting_first(task), self._asking():
            async with self._agent.watch(cursor) as events:
                async for event in events:
                    if event.type == "snapshot" and not (self._as_json or is_new):
                        self._note(f"following {self._agent.id}")
                    if self._as_json:
                        value = {name: each for name, each in event.value.items() if name != "approval"}
                        click.echo(json_text(value))
                    else:
                        self._print(event, is_new=is_new or event.type != "snapshot")
                    status = await self._heed(event, ends_idle=ends_idle, ends_with=ends_with)
                    if status is not None:
                        self._end_line()
                        return status
        self._end_line()
        return ExitStatus.FAILURE  # the server has stopped

    async def _heed(self, event: AgentEvent, *, ends_idle: bool, ends_with: str | None) -> int | None:
        """Answer an event that asks; return the exit status with which one is the last."""
        value = event.value
        match event.type, value.get("state") or value.get("status"):
            case (("approval" | "question"), "asked"):
                await self._hear(value)
            case (("approval" | "question"), _):
                self._settled(value)
            case "turn", "ended":
                self._has_failed = not _is_good(value)
                if ends_with is not None and value.get("messageID") == ends_with:
                    return ExitStatus.FAILURE if self._has_failed else ExitStatus.DONE
            case "status", "idle" if ends_idle:
                if value.get("error") and not self._has_failed:  # it ended before this began to follow
                    self._note(f"its last turn has ended: {_one_line(value['error'])}")
                    self._has_failed = True
                return ExitStatus.FAILURE if self._has_failed else ExitStatus.DONE
            case "status", "paused" if ends_idle or ends_with:
                self._note(f"paused: {value.get('error') or 'resume it to go on'}")
                return ExitStatus.FAILURE
            case "status", status if status in _OVER and (ends_idle or ends_with or status != "interrupted"):
                self._note(f"{status}{': ' + str(value['error']) if value.get('error') else ''}")
                return ExitStatus.DONE if status == "terminated" and not ends_with else ExitStatus.FAILURE
        return None

    async def _hear(self, value: dict[str, Any]) -> None:
        """Have what is asked answered: by a rule, at the terminal, or by somebody elsewhere."""
        request_id = str(value.get("id"))
        if request_id in self._heard:
            return
        self._heard.add(request_id)
        if request_id not in [each.id for each in await self._agent.approvals()]:
            return  # these are events of some time ago, and it has been answered since
        if self._allows and value.get("type") == "approval":
            with contextlib.suppress(ShareError):  # somebody has answered meanwhile, which an event tells
                await self._agent.answer(request_id, "once")
        elif self._is_asking:
            self._waiting.append(value)
            if len(self._waiting) == 1:
                self._prompt()
        elif not self._as_json:
            self._note(f"it waits for an answer: rpcshare agent approve {self._agent.id} {request_id}")

    def _settled(self, value: dict[str, Any]) -> None:
        """Ask no longer what has been answered elsewhere, or what nobody waits for any more."""
        request_id = value.get("id")
        if not any(each.get("id") == request_id for each in self._waiting):
            return
        is_shown = self._waiting[0].get("id") == request_id
        self._waiting = [each for each in self._waiting if each.get("id") != request_id]
        if is_shown:
            self._given = []
            self._note(f"  {value.get('state')}")
            self._prompt()

    def _prompt(self) -> None:
        """Ask for the next line of an answer."""
        if not self._waiting:
            return
        value = self._waiting[0]
        if value.get("type") == "approval":
            what = ", ".join(str(each) for each in value.get("patterns") or [])
            self._note(f"? {value.get('permission')}: {what}")
            self._note("  allow it? [y]es, [a]lways, [n]o")
            return
        question = _questions(value)[len(self._given)]
        self._note(f"? {question.get('question')}")
        for number, label in enumerate(_labels(question), 1):
            self._note(f"  {number}. {label}")

    def _read_line(self) -> None:
        """Take a line that was typed."""
        line = sys.stdin.readline()
        if not line:  # nobody is there any more
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            return
        if not self._waiting:
            return
        value, words = self._waiting[0], line.strip()
        answer: str | list[list[str]] | None
        if value.get("type") == "approval":
            answer = _REPLIES.get(words[:1].lower())
        else:
            labels = _labels(_questions(value)[len(self._given)])
            is_number = words.isdecimal() and 0 < int(words) <= len(labels)
            self._given.append([labels[int(words) - 1] if is_number else words])
            answer = self._given if len(self._given) == len(_questions(value)) else None
        if answer is None:
            self._prompt()
            return
        self._given = []
        task = asyncio.get_running_loop().create_task(self._send_answer(str(value.get("id")), answer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _send_answer(self, request_id: str, answer: str | list[list[str]]) -> None:
        try:
            await self._agent.answer(request_id, answer)
        except ShareError as exc:
            self._note(exc.message)

    @contextlib.contextmanager
    def _asking(self) -> Any:  # noqa: ANN401 -- a generator
        """Take answers from the terminal, if there is one, while events go on being printed."""
        if self._as_json or not sys.stdin.isatty():
            yield
            return
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(sys.stdin.fileno(), self._read_line)
        except (NotImplementedError, OSError, PermissionError):
            yield
            return
        self._is_asking = True
        try:
            yield
        finally:
            loop.remove_reader(sys.stdin.fileno())

    @contextlib.contextmanager
    def _aborting_first(self, task: asyncio.Task[Any] | None) -> Any:  # noqa: ANN401 -- a generator
        """Have the first Ctrl-C end the agent's turn, and the second this command."""
        loop = asyncio.get_running_loop()
        aborting: list[asyncio.Task[None]] = []

        def interrupt() -> None:
            self._interrupts += 1
            if self._interrupts > 1 or not sys.stdin.isatty():
                if task is not None:
                    task.cancel()
                return
            self._note("ending its turn; once more to leave")
            aborting.append(loop.create_task(self._agent.abort()))

        try:
            loop.add_signal_handler(signal.SIGINT, interrupt)
        except (NotImplementedError, RuntimeError, ValueError):
            yield
            return
        try:
            yield
        except asyncio.CancelledError:
            if self._interrupts:
                raise KeyboardInterrupt from None
            raise
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    # What is printed

    def _print(self, event: AgentEvent, *, is_new: bool) -> None:
        value = event.value
        if event.type in ("snapshot", "sync"):
            for item in event.data:
                data = item.get("data")
                if isinstance(data, dict):
                    self._item(item.get("type"), data, is_new=is_new)
        elif event.type == "turn" and value.get("state") == "ended" and not _is_good(value):
            why = f": {_one_line(value['error'])}" if value.get("error") else ""
            self._note(f"the turn has ended: {value['reason']}{why}")
        elif event.type == "budget" and value.get("reason"):
            self._note(str(value["reason"]))

    def _item(self, kind: object, data: dict[str, Any], *, is_new: bool) -> None:
        if kind == "message":
            self._roles[str(data.get("id"))] = str(data.get("role"))
        elif kind == "part" and data.get("type") == "text":
            text, part_id = str(data.get("text") or ""), str(data.get("id"))
            printed = self._texts.get(part_id, 0)
            self._texts[part_id] = max(len(text), printed)
            if is_new and self._roles.get(str(data.get("messageID"))) != "user" and len(text) > printed:
                self._write(text[printed:], begins=printed == 0)
        elif kind == "part" and data.get("type") == "tool":
            state = _object(data.get("state"))
            status, part_id = str(state.get("status")), str(data.get("id"))
            if self._tools.get(part_id) == status:
                return
            self._tools[part_id] = status
            if is_new and status in ("completed", "error"):
                given = _object(state.get("input"))
                said = state.get("error") or state.get("title") or given.get("command") or ""
                mark = "✗" if status == "error" else "✓"
                self._note(f"{mark} {data.get('tool')} {str(said).splitlines()[0] if said else ''}".rstrip())

    def _write(self, text: str, *, begins: bool) -> None:
        if begins:
            self._end_line()
        self._out.write(printable_text(text))
        self._out.flush()
        self._in_line = not text.endswith("\n")

    def _note(self, line: str) -> None:
        self._end_line()
        say(line, err=True)

    def _end_line(self) -> None:
        if self._in_line:
            self._out.write("\n")
            self._out.flush()
            self._in_line = False


def _is_good(ended: dict[str, Any]) -> bool:
    """Whether a turn has come to its own end."""
    return ended.get("reason") in (None, "completed")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _questions(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in value.get("questions") or [] if isinstance(each, dict)] or [{}]


def _labels(question: dict[str, Any]) -> list[str]:
    return [str(_object(each).get("label")) for each in question.get("options") or []]


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
