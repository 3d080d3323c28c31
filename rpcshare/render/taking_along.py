"""What a reader is offered to take a session along: its link, its files, the commands that go on with it."""

from typing import Self

import msgspec

from rpcshare.shares.outline import Transcript

__all__ = ["Way"]


class Way(msgspec.Struct, frozen=True):
    """How a reader takes a session along."""

    share_id: str
    link: str
    is_public: bool
    """Whether opencode can import it by its link."""
    commands: str
    formats: tuple[tuple[str, str], ...] = (
        ("opencode", "For opencode"),
        ("markdown", "Markdown"),
        ("json", "JSON"),
        ("jsonl", "JSON Lines"),
    )
    """What it can be exported as, with names for people."""

    @classmethod
    def of(cls, link: str, transcript: Transcript) -> Self:
        """Return it for a share whose own address is ``link``."""
        brought = [f"opencode import {link}"]
        if not transcript.is_public:
            brought = [
                f"rpcshare pull {link} --format opencode -o session.json",
                "opencode import session.json",
            ]
        commands = "\n".join([*brought, f"opencode --session {transcript.session_id}"])
        return cls(transcript.share_id, link, transcript.is_public, commands)
