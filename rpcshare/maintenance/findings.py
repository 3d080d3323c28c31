"""What an examination of a store finds."""

from enum import StrEnum

import msgspec

__all__ = ["Finding", "Problem", "Report"]


class Problem(StrEnum):
    """What is wrong, and whether it can be put right."""

    DAMAGED = "damaged"
    """A share cannot be read, or not all of it. Left alone: a backup is needed."""
    UNKNOWN = "unknown"
    """Something is there that makes no sense. Left alone."""
    INDEX = "index"
    """What a listing tells of a share is not what its log says. Can be rebuilt."""
    UNFINISHED = "unfinished"
    """A share is deleted, but some of it is still there. Can be finished."""
    ROLLED_BACK = "rolled back"
    """The store has an older state of something than a server has seen. The newest can be put back."""
    LEFTOVER = "leftover"
    """Something belongs to a share, or to a time of it, that is gone. Can be removed."""


class Finding(msgspec.Struct):
    """One thing that is wrong."""

    place: str
    """The key of the object, or where objects' keys begin."""
    problem: Problem
    detail: str
    fixed: bool = False


class Report(msgspec.Struct):
    """The state of a store."""

    shares: int = 0
    """How many there are, those in the older layout included."""
    older: int = 0
    """How many of them are in the older layout; their first write upgrades them."""
    superfluous: int = 0
    """Objects that servers remove in the course of things: entries behind a snapshot, tombstones."""
    findings: list[Finding] = []

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong, or nothing any more."""
        return all(finding.fixed for finding in self.findings)
