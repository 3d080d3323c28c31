"""Limits that hold for all processes of a server together: each tells the others what it has counted.

Word of it takes less than a millisecond, so what comes to several processes at the same moment may exceed a
limit by what is under way. A process that takes another's place begins its minutes anew.
"""

from itertools import islice
from typing import Final

import msgspec

from rpcshare.auth.audit import AuditLog
from rpcshare.auth.rate_limits import CallerLimits, ConnectionLimit, RateLimit
from rpcshare.auth.request_rates import RequestRates
from rpcshare.broadcast.worker_messages import Member, Topic, WorkerMessages

__all__ = ["share_limits"]

_CALLERS_AT_ONCE = 500  # in one message


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """The sender has counted one of ``key``."""

    key: str


class Known(msgspec.Struct, frozen=True, array_like=True):
    """What hashes to this was right."""

    digest: bytes


class Held(msgspec.Struct, frozen=True, array_like=True):
    """How many connections callers have at the sender; of others it says nothing."""

    connections: dict[str, int]


CREATED: Final = Topic("share created", Counted)
REQUESTED: Final = Topic("request made", Counted)
FAILED: Final = Topic("authentication failed", Counted)
FAILED_AT_SITE: Final = Topic("authentication failed at a site", Counted)
TOLD: Final = Topic("refusal told of a network", Counted), Topic("refusal told", Counted)
KNOWN: Final = Topic("credential known", Known)
HELD: Final = Topic("connections held", Held)


def share_limits(
    limits: CallerLimits, rates: RequestRates | None, audit: AuditLog, mailbox: WorkerMessages
) -> None:
    """Have ``limits``, ``rates``, and those of ``audit``, count what all processes with a mailbox do.

    They share the key of their limits. ``rates`` is None where requests are counted in the database.
    """
    _share_rate(limits.creates, mailbox, CREATED)
    if rates is not None:
        _share_rate(rates.counted, mailbox, REQUESTED)
    _share_rate(limits.failures.of_networks, mailbox, FAILED)
    _share_rate(limits.failures.of_sites, mailbox, FAILED_AT_SITE)
    for limit, topic in zip(audit.limits, TOLD, strict=True):
        _share_rate(limit, mailbox, topic)
    limits.failures.on_known = lambda digest: mailbox.post_all(KNOWN, Known(digest))
    mailbox.on(KNOWN, lambda _, message: limits.failures.know(message.digest))
    _share_connections(limits.connections, mailbox)


def _share_rate(limit: RateLimit, mailbox: WorkerMessages, topic: Topic[Counted]) -> None:
    limit.on_count = lambda key: mailbox.post_all(topic, Counted(key))
    mailbox.on(topic, lambda _, message: limit.add(message.key))


def _share_connections(limit: ConnectionLimit, mailbox: WorkerMessages) -> None:
    def on_held(sender: Member, message: Held) -> None:
        held = limit.elsewhere.setdefault(sender.slot, {})
        for caller, number in message.connections.items():
            if number:
                held[caller] = number
            else:
                held.pop(caller, None)

    def on_joined(slot: int) -> None:
        limit.elsewhere.pop(slot, None)
        callers = iter(limit.open.items())
        while some := dict(islice(callers, _CALLERS_AT_ONCE)):
            mailbox.post([slot], HELD, Held(some))

    limit.on_change = lambda caller: mailbox.post_all(HELD, Held({caller: limit.open[caller]}))
    mailbox.on(HELD, on_held)
    mailbox.on_joined(on_joined)
    mailbox.on_left(lambda member: limit.elsewhere.pop(member.slot, None))
