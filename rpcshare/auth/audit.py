"""The audit log: who did what with which share, a line each, and who was refused.

A line has the fields ``time``, ``action``, ``outcome``, ``subject``, ``address`` and ``share``, and with a
subject the ``source`` that it comes from, unless that is the admin token; what was refused or failed has a
``reason`` besides, which is an error's code. No token, secret, password or content is ever in it. Lines are
events of the structlog logger ``rpcshare.audit``.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec

from rpcshare.auth.caller import ANONYMOUS, Caller, Scope
from rpcshare.auth.rate_limits import RateLimit, network_of
from rpcshare.auth.subject_sources import Source
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.structured_log import structlog

__all__ = ["LOGGER", "Action", "AuditEvent", "AuditLog", "RecordedEvent", "subject_fields"]

LOGGER: Final = "rpcshare.audit"

REFUSALS: Final = frozenset(
    {ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN, ErrorCode.INVALID_SECRET, ErrorCode.RATE_LIMITED}
)

# Lines a minute that tell of refusals: from one network, and in all.
REFUSALS_OF_ONE: Final = 30
REFUSALS_IN_ALL: Final = 600

_LONGEST = 200  # characters of a name that an identity provider or a proxy chose
_SHARE_ID = re.compile(r"[A-Za-z0-9_-]{1,288}")


class Action(StrEnum):
    """What was done, or would have been."""

    REFUSALS = "refusals"
    """None of its own: tells how many refusals have not been told."""

    AUTHENTICATE = "authenticate"
    CONNECT = "connect"
    REQUEST = "request"
    SHARE_CREATE = "share.create"
    SHARE_ADOPT = "share.adopt"
    SHARE_READ = "share.read"
    SHARE_SYNC = "share.sync"
    SHARE_UPDATE = "share.update"
    SHARE_UNLOCK = "share.unlock"
    SHARE_DELETE = "share.delete"
    SHARE_EXPIRE = "share.expire"
    SHARES_LIST = "shares.list"
    SHARES_SEARCH = "shares.search"
    VIEW_TOKEN_CREATE = "view_token.create"  # noqa: S105 -- an action's name
    KEYS_LIST = "keys.list"
    KEY_CREATE = "key.create"
    KEY_ROTATE = "key.rotate"
    KEY_REVOKE = "key.revoke"
    TOKEN_CREATE = "token.create"  # noqa: S105 -- likewise
    TOKEN_REVOKE = "token.revoke"  # noqa: S105 -- likewise
    SIGN_IN = "user.sign_in"
    SIGN_OUT = "user.sign_out"
    SESSION_END = "user.session_end"
    USERS_LIST = "users.list"
    USER_ROLE = "user.role"
    USER_DISABLE = "user.disable"
    USER_ENABLE = "user.enable"
    USER_LIMITS = "user.limits"
    ORGANIZATION_LIMITS = "organization.limits"
    AUDIT_READ = "audit.read"
    VAULT_LIST = "vault.list"
    VAULT_STORE = "vault.store"
    VAULT_RETRIEVE = "vault.retrieve"
    VAULT_USE = "vault.use"
    VAULT_ROTATE = "vault.rotate"
    VAULT_REVOKE = "vault.revoke"
    WORKSPACE_CREATE = "workspace.create"
    WORKSPACES_LIST = "workspaces.list"
    WORKSPACE_READ = "workspace.read"
    WORKSPACE_UPDATE = "workspace.update"
    WORKSPACE_REMOVE = "workspace.remove"
    AGENT_START = "agent.start"
    AGENTS_LIST = "agents.list"
    AGENT_READ = "agent.read"
    AGENT_SEND = "agent.send"
    AGENT_ANSWER = "agent.answer"
    """An approval or a question."""
    AGENT_LINK = "agent.link"
    """A link that answers one."""
    AGENT_CONTROL = "agent.control"
    """Abort, pause, resume, revert, and the like; ``what`` says which."""
    AGENT_TERMINATE = "agent.terminate"
    AGENT_WEBHOOK = "agent.webhook"
    """Where an owner is told of agents; ``what`` is ``set``, ``remove`` or ``test``."""
    SANDBOX_EGRESS = "sandbox.egress"
    """A connection out of a sandbox."""
    SANDBOX_CALL = "sandbox.call"
    """A call to the kernel, from within a sandbox."""
    SANDBOX_END = "sandbox.end"
    AUTHORITY_CREATE = "authority.create"
    CERTIFICATE_ISSUE = "certificate.issue"
    CERTIFICATE_REVOKE = "certificate.revoke"


class AuditEvent(msgspec.Struct, frozen=True):
    """What was done in an organization, for its admins."""

    organization: str
    at: int
    """Milliseconds since the epoch."""
    action: Action
    outcome: str
    subject: str
    address: str
    details: dict[str, str]


class RecordedEvent(msgspec.Struct, frozen=True):
    """An event, and its id."""

    id: str
    event: AuditEvent

    def described(self) -> dict[str, object]:
        """Return it by the names of the wire."""
        event = self.event
        return {
            "id": self.id,
            "time": event.at,
            "action": event.action.value,
            "outcome": event.outcome,
            "subject": event.subject,
            "address": event.address,
            "details": event.details,
        }


# About a share that is the caller's own, or was.
_TELLING_WHICH = frozenset({Action.SHARE_CREATE, Action.SHARE_ADOPT, Action.SHARE_DELETE})


def _of_organization(
    action: Action, outcome: str, caller: Caller, share: str, details: dict[str, str]
) -> AuditEvent | None:
    """Return what the admins of an organization are told: of its users, and of what was done to them.

    What an admin of the server does elsewhere is nothing to them. A share that may be another
    organization's is not named: to know its id may be enough to read it.
    """
    about = details.get("targetOrganization")
    organization = about or (None if Scope.ADMIN in caller.scopes else caller.organization)
    if organization is None:
        return None
    told = {name: _shown(value) for name, value in details.items() if name != "targetOrganization"}
    if outcome == "ok" and action in _TELLING_WHICH and _SHARE_ID.fullmatch(share):
        told["share"] = share
    is_of_member = caller.organization == organization
    return AuditEvent(
        organization=organization,
        at=int(time.time() * 1000),
        action=action,
        outcome=outcome,
        subject=_shown(caller.subject or "") if is_of_member else "an admin of the server",
        address=_shown(caller.address) if is_of_member else "",
        details=told,
    )


class AuditLog:
    """Writes the lines. A flood of refusals is cut short, and the next line tells how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the clock for the limits on refusals: in seconds, and it never goes back."""
        self.on_event: Callable[[AuditEvent], None] | None = None
        """Is given what was done in an organization, beside the lines."""
        self.limits = RateLimit(REFUSALS_OF_ONE, clock), RateLimit(REFUSALS_IN_ALL, clock)
        """How many refusals are told: of one network, and in all."""
        self._left_out = 0

    def done(self, action: Action, caller: Caller = ANONYMOUS, *, share: str = "", **details: str) -> None:
        """Tell of what has been done.

        Args:
            action: what.
            caller: by whom; ANONYMOUS, where the server did it by itself.
            share: the share's id, if it is about one.
            details: names and ids, such as that of a key; nothing secret, and nothing that a share holds.
        """
        self._write(action, "ok", caller, share, **details)

    def failed(self, action: Action, caller: Caller, reason: ErrorCode, *, share: str = "") -> None:
        """Tell of what was allowed, and could not be done or not to its end."""
        self._write(action, "failed", caller, share, reason=reason.value)

    def refused(
        self, action: Action, caller: Caller, reason: ErrorCode, *, share: str = "", **details: str
    ) -> None:
        """Tell of what a caller may not do, unless there has been too much of it."""
        network = network_of(caller.address)
        of_one, in_all = self.limits
        if of_one.wait(network) or in_all.wait(""):
            self._left_out += 1
            return
        of_one.count(network)
        in_all.count("")
        self._write(action, "refused", caller, share, reason=reason.value, **details)

    @contextmanager
    def refusals(self, action: Action, caller: Caller, *, share: str = "") -> Iterator[None]:
        """Tell of what is refused in this context: UNAUTHORIZED, FORBIDDEN, INVALID_SECRET, RATE_LIMITED."""
        try:
            yield
        except ShareError as exc:
            if exc.code in REFUSALS:
                self.refused(action, caller, exc.code, share=share)
            raise

    def close(self) -> None:
        """Tell how many refusals were left out, if nothing has told it yet."""
        if self._left_out:
            self._write(Action.REFUSALS, "refused", ANONYMOUS, "")

    def _write(self, action: Action, outcome: str, caller: Caller, share: str, **details: str) -> None:
        if self.on_event is not None and (event := _of_organization(action, outcome, caller, share, details)):
            self.on_event(event)
        left_out = {"leftOut": self._left_out} if self._left_out else {}
        self._left_out = 0
        log = structlog.get_logger(LOGGER)
        tell = log.info if outcome == "ok" else log.warning
        tell(
            "audit",
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            action=action.value,
            outcome=outcome,
            **subject_fields(caller),
            address=_shown(caller.address),
            # What is no id may be anything, put in the wrong place.
            share=share if _SHARE_ID.fullmatch(share) else "",
            **{name: _shown(value) for name, value in details.items()},
            **left_out,
        )


def subject_fields(caller: Caller | None) -> dict[str, str | None]:
    """Return what a line of a log tells of who asked: ``subject`` and, where there is one, ``source``."""
    if caller is None or caller.subject is None:
        return {"subject": None}
    fields: dict[str, str | None] = {"subject": _shown(caller.subject)}
    if caller.organization is not None:
        fields["organization"] = _shown(caller.organization)
    # The admin token's subject says it all, and a user's organization; who else is called so has a source.
    elif caller.source not in ("", Source.ADMIN):
        fields["source"] = _shown(caller.source)
    return fields


def _shown(text: str) -> str:
    """Return ``text`` as one short line."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:_LONGEST])
