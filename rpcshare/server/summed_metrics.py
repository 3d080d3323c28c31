"""The numbers of all processes of a server as one: whichever is asked asks the others.

What a process has counted stays in the sum when it has ended, or sums would go back, which Prometheus takes
for a restart. Who answers another's question therefore leaves its numbers with the supervisor too, and so
does each at its end. When one has ended, the supervisor gives them to those that are left: no scrape has
shown more of it than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from rpcshare.broadcast.worker_messages import Member, Topic, WorkerMessages

__all__ = [
    "DEPARTED",
    "TAKEN",
    "Departed",
    "Family",
    "SummedMetrics",
    "Taken",
    "counters",
    "families",
    "merged",
]

ANSWER_WITHIN = 1.0
"""Seconds. Of a process that takes longer, the last numbers that are known are taken."""

_COUNTERS = frozenset({"counter", "histogram"})
# The sum of two says nothing.
_NOT_SUMMED = {
    "rpcshare_event_loop_lag_seconds": max,
    "rpcshare_build": max,
    "rpcshare_index_lag_seconds": max,
    "rpcshare_index_available": min,
    "process_start_time_seconds": min,
    # Each process has its own limit: what counts is the one that is nearest to it.
    "process_open_fds": max,
    "process_max_fds": min,
    "rpcshare_store_file_bytes": max,
    "rpcshare_store_wal_bytes": max,
    "rpcshare_store_disk_free_bytes": min,
}

Labels = tuple[tuple[str, str], ...]


class Family(msgspec.Struct, frozen=True, array_like=True):
    """A metric, with all of its labels."""

    name: str
    documentation: str
    kind: str
    samples: dict[tuple[str, Labels], float]


class Taken(msgspec.Struct, frozen=True, array_like=True):
    """The numbers of the sender."""

    question: int
    """Which asked for them; 0: none did."""
    families: list[Family]


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """The sender wants the numbers of the receiver."""

    question: int


class Departed(msgspec.Struct, frozen=True, array_like=True):
    """The numbers of a process that has ended, which count from now on without it."""

    slot: int
    run: int
    families: list[Family]


ASKED: Final = Topic("metrics asked", Asked)
TAKEN: Final = Topic("metrics taken", Taken)
DEPARTED: Final = Topic("process departed", Departed)


def families(registry: CollectorRegistry) -> list[Family]:
    """Return what is in a registry now."""
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            {(each.name, tuple(each.labels.items())): each.value for each in metric.samples},
        )
        for metric in registry.collect()
    ]


def counters(of: Iterable[Family]) -> list[Family]:
    """Return those of the metrics that only grow: of a process that has ended, nothing else counts."""
    return [family for family in of if family.kind in _COUNTERS]


def merged(processes: Iterable[Iterable[Family]]) -> list[Family]:
    """Return the metrics of several processes as those of one."""
    found: dict[str, Family] = {}
    for each in processes:
        for family in each:
            held = found.get(family.name)
            if held is None:
                found[family.name] = msgspec.structs.replace(family, samples=dict(family.samples))
            else:
                _add(held.samples, family)
    return list(found.values())


def _add(samples: dict[tuple[str, Labels], float], family: Family) -> None:
    combine = _NOT_SUMMED.get(family.name)
    for key, value in family.samples.items():
        if key not in samples:
            samples[key] = value
        else:
            samples[key] = samples[key] + value if combine is None else combine(samples[key], value)


class SummedMetrics:
    """One process's part in the sum."""

    def __init__(
        self,
        inbox: WorkerMessages,
        registry: CollectorRegistry,
        supervisor: int,
        departed: Sequence[Family],
    ) -> None:
        """Answer for what is in ``registry``.

        Args:
            inbox: the way to the other processes.
            registry: the numbers of this one.
            supervisor: the slot of who keeps what processes leave.
            departed: what those have left that ended before this one was there.
        """
        self._inbox = inbox
        self._registry = registry
        self._supervisor = supervisor
        self._departed = list(departed)
        self._last: dict[Member, list[Family]] = {}  # what each that is there has answered last
        self._numbers = count(1)
        self._questions: dict[int, _Question] = {}
        inbox.on(ASKED, self._on_asked)
        inbox.on(TAKEN, self._on_taken)
        inbox.on(DEPARTED, self._on_departed)
        inbox.on_left(self._on_left)

    async def text(self) -> bytes:
        """Return the numbers of all processes in Prometheus' text format."""
        number = next(self._numbers)
        question = self._questions[number] = _Question(self._inbox.others)
        self._inbox.post_all(ASKED, Asked(number))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_WITHIN):
                    await question.answered.wait()
        finally:
            del self._questions[number]
        own = self._take(0)
        silent = [
            counters(last) if member.slot in question.waited_for else last
            for member, last in self._last.items()
        ]
        return _text([*merged([own, *silent, self._departed]), _processes(1 + len(self._inbox.others))])

    def close(self) -> None:
        """Leave the numbers of this process with the supervisor."""
        self._take(0)

    def _take(self, question: int) -> list[Family]:
        """Return this process's numbers, once they are on their way to the supervisor."""
        taken = families(self._registry)
        self._inbox.report(self._supervisor, TAKEN, Taken(question, counters(taken)))
        return taken

    def _on_asked(self, sender: Member, message: Asked) -> None:
        taken = self._take(message.question)
        self._inbox.post([sender.slot], TAKEN, Taken(message.question, taken))

    def _on_taken(self, sender: Member, message: Taken) -> None:
        if self._inbox.is_there(sender):
            self._last[sender] = message.families
        question = self._questions.get(message.question)
        if question is not None:
            question.heard(sender.slot)

    def _on_departed(self, _sender: Member, message: Departed) -> None:
        self._last.pop(Member(message.slot, message.run), None)
        self._departed = merged([self._departed, message.families])

    def _on_left(self, member: Member) -> None:
        self._last.pop(member, None)
        for question in self._questions.values():
            question.heard(member.slot)


class _Question:
    """Who has been asked, and not answered yet."""

    def __init__(self, slots: Iterable[int]) -> None:
        self.waited_for = set(slots)
        self.answered = asyncio.Event()
        self.heard(-1)

    def heard(self, slot: int) -> None:
        """Wait for ``slot`` no longer."""
        self.waited_for.discard(slot)
        if not self.waited_for:
            self.answered.set()


def _processes(number: int) -> Family:
    name = "rpcshare_workers"
    return Family(name, "Processes that serve.", "gauge", {(name, ()): float(number)})


class _Collected(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.documentation, family.kind)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric


def _text(of: Iterable[Family]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Collected(of))
    return generate_latest(registry)
