"""Credentials out of what is told of agents beside their transcripts, which the share log redacts itself."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from rpcshare.shares.redaction import redact

__all__ = ["redacted"]

T = TypeVar("T")


def redacted(value: T) -> T:
    """Return JSON data, or a text, without what looks like a credential."""
    found: T = msgspec.json.decode(redact(msgspec.json.encode(value)))
    return found
