"""Credentials out of what is told of agents beside their transcripts, which the share log redacts itself."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.redaction import redact

__all__ = ["redacted", "redacted_aside", "shown_title"]

T = TypeVar("T")


def redacted(value: T) -> T:
    """Return JSON data, or a text, without what looks like a credential."""
    found: T = msgspec.json.decode(redact(msgspec.json.encode(value)))
    return found


_LONGEST_TITLE = 500
_LARGEST_ANSWER = 16 * 2**20  # bytes


async def redacted_aside(value: T) -> T:
    """Return what :func:`redacted` does, of what may be large: in a thread, and within a bound.

    Raises:
        ShareError: PAYLOAD_TOO_LARGE.
    """
    if len(msgspec.json.encode(value)) > _LARGEST_ANSWER:
        message = f"opencode answers more than {_LARGEST_ANSWER:,} bytes, which are too many"
        raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)
    return await asyncio.to_thread(redacted, value)


def shown_title(title: str) -> str:
    """Return what is shown of a title that opencode has made."""
    # It is cut first, because to look through megabytes takes seconds. No column takes a NUL.
    return redacted(title[: 8 * _LONGEST_TITLE])[:_LONGEST_TITLE].replace("\0", "")
