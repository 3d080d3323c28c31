"""What a person is told when a page cannot be shown."""

from __future__ import annotations

import math
import re

import msgspec

from rpcshare.errors import ErrorCode, Reason, ShareError
from rpcshare.server.failures import STATUS, explain

__all__ = ["Refusal", "next_of", "refusal"]


class Refusal(msgspec.Struct, frozen=True):
    """A page that says why there is no other."""

    status: int
    title: str
    lines: tuple[str, ...] = ()
    problem: str = ""
    has_sign_in: bool = False
    next_address: str = ""
    unlock_address: str = ""
    links: tuple[tuple[str, str], ...] = ()
    headers: dict[str, str] = {}


_SAID: dict[ErrorCode, tuple[str, str]] = {
    ErrorCode.SHARE_NOT_FOUND: (
        "There is no such session",
        "It may have been removed by whoever shared it, or the link may not be complete.",
    ),
    ErrorCode.SHARE_GONE: (
        "This session has expired",
        "It was shared for a limited time, which is over. Its content has been removed.",
    ),
    ErrorCode.WORKSPACE_NOT_FOUND: (
        "There is no such workspace",
        "It may have been removed, or it is somebody else's.",
    ),
    ErrorCode.SESSION_NOT_FOUND: (
        "There is no such agent",
        "The address may be mistyped, or the agent is somebody else's.",
    ),
    ErrorCode.STORAGE_UNAVAILABLE: (
        "The sessions cannot be reached at the moment",
        "Nothing is lost. Please try again in a few seconds.",
    ),
    ErrorCode.INTERNAL: ("Something went wrong", "It is not your fault. Please try again."),
}

# Where a visitor may be led after signing in: nothing but pages of this site.
_NEXT = re.compile(
    r"/((?:my-)?sessions|keys|vault|profile|organization|agents(?:/ses_[A-Za-z0-9]{1,60}(?:/diff)?)?|workspaces(?:/wsp_[0-9a-f]{24}(?:/files)?)?|share/[A-Za-z0-9_-]{1,300})"
)


def next_of(path: str) -> str:
    """Return where to lead somebody who has signed in at ``path``, from the site's root; empty: nowhere."""
    match = _NEXT.fullmatch(path)
    return match[1] if match else ""


def refusal(error: Exception, share_id: str, problem: str, path: str) -> Refusal:
    """Return what is said of ``error``.

    Args:
        error: why there is no page.
        share_id: the share that was asked for; empty for none.
        problem: what was wrong with what the visitor entered.
        path: of the page that was asked for.
    """
    told = explain(error)
    headers = {}
    if told.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(told.retry_after))
    status = int(STATUS[told.code])
    if told.code is ErrorCode.UNAUTHORIZED:
        return _sign_in(told, share_id, problem, path)
    if told.code is ErrorCode.FORBIDDEN:
        return _forbidden(told, share_id)
    if told.code is ErrorCode.RATE_LIMITED:  # of what, and for how long, may be a limit that somebody chose
        return Refusal(status, "Please wait a little", (f"{told.message}.",), problem, headers=headers)
    title, line = _SAID.get(told.code, ("That cannot be done", told.message))
    return Refusal(status, title, (line,), problem, headers=headers)


def _sign_in(told: ShareError, share_id: str, problem: str, path: str) -> Refusal:
    next_address = next_of(path) or (f"share/{share_id}" if share_id else "sessions")
    headers = {"WWW-Authenticate": "Bearer"}
    if not share_id:
        is_of_agents = path.startswith(("/workspaces", "/agents"))
        lists = "Workspaces and agents are" if is_of_agents else "The list of shared sessions is"
        title, line = "Sign in", f"{lists} for whoever runs this server."
    elif told.reason is Reason.PASSWORD_NEEDED:
        title, line = "This session has a password", "Whoever gave you the link can tell it to you."
    else:
        title, line = "This session is private", "Sign in with a token that may read it."
    return Refusal(
        int(STATUS[told.code]),
        title,
        (line,),
        problem,
        has_sign_in=True,
        next_address=next_address,
        unlock_address=f"share/{share_id}/unlock"
        if share_id and told.reason is Reason.PASSWORD_NEEDED
        else "",
        headers=headers,
    )


def _forbidden(told: ShareError, share_id: str) -> Refusal:
    reason = told.message.removeprefix("Forbidden: ")
    line = reason[:1].upper() + reason[1:] + "."
    if told.reason is Reason.PASSWORD_NEEDED and share_id:
        title = "This session has a password"
        return Refusal(int(STATUS[told.code]), title, (line,), unlock_address=f"share/{share_id}/unlock")
    links = () if share_id else (("Your own sessions", "my-sessions"),)
    return Refusal(int(STATUS[told.code]), "This is not open to you", (line,), links=links)
