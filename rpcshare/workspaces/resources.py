"""What a workspace may use: memory, processors, disk and time, as people write them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import msgspec

from rpcshare.durations import parse_duration
from rpcshare.errors import ErrorCode, ShareError

if TYPE_CHECKING:
    from rpcshare.sandbox.driver import SandboxLimits

__all__ = ["Bounds", "Resources", "ResourcesGiven", "parse_resources", "parse_size"]

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kKMGT]i?)?[bB]?")
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"ki": 2**10, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

_LEAST_MEMORY = 64 * 2**20
_LEAST_DISK = 2**20
_LEAST_CPU = 0.05
_LEAST_TIMEOUT = 1.0


class ResourcesGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a caller says: sizes as ``2GiB``, ``512M`` or a number of bytes, a time as ``2h`` or seconds."""

    memory: str | int | None = None
    cpu: str | float | None = None
    """Processors: ``2``, ``0.5`` or, in thousandths, ``500m``."""
    disk: str | int | None = None
    timeout: str | float | None = None


class Resources(msgspec.Struct, frozen=True):
    """The limits of one workspace, in bytes, processors and seconds. ``timeout`` None: none."""

    memory: int
    cpu: float
    disk: int
    timeout: float | None = None

    def limits(self, *, processes: int = 512) -> SandboxLimits:
        """Return them as a sandbox takes them."""
        from rpcshare.sandbox.driver import SandboxLimits  # noqa: PLC0415 -- rows are read without a sandbox

        return SandboxLimits(
            memory=self.memory, cpus=self.cpu, disk=self.disk, timeout=self.timeout, processes=processes
        )


class Bounds(msgspec.Struct, frozen=True):
    """What the server's settings allow at most, which is what a workspace has unless its maker says less."""

    memory: int = 2 * 2**30
    cpu: float = 2.0
    disk: int = 5 * 2**30


def parse_resources(given: object, bounds: Bounds, current: Resources | None = None) -> Resources:
    """Return what a workspace may use.

    Args:
        given: ``{memory?, cpu?, disk?, timeout?}``, or None.
        bounds: the most that is allowed.
        current: what stands for what is not given; None: the most.

    Raises:
        ShareError: INVALID_ARGUMENT: names what is wrong.
    """
    try:
        wanted = msgspec.convert({} if given is None else given, ResourcesGiven)
    except msgspec.ValidationError as exc:
        raise _wrong("resources", str(exc)) from None
    base = current or Resources(bounds.memory, bounds.cpu, bounds.disk)
    memory = base.memory if wanted.memory is None else parse_size(wanted.memory, "resources.memory")
    disk = base.disk if wanted.disk is None else parse_size(wanted.disk, "resources.disk")
    cpu = base.cpu if wanted.cpu is None else _cpu(wanted.cpu)
    timeout = base.timeout if wanted.timeout is None else _timeout(wanted.timeout)
    for name, value, least, most in (
        ("memory", memory, _LEAST_MEMORY, bounds.memory),
        ("disk", disk, _LEAST_DISK, bounds.disk),
        ("cpu", cpu, _LEAST_CPU, bounds.cpu),
    ):
        if not least <= value <= most:
            raise _wrong(f"resources.{name}", f"must be {least:,} to {most:,}, which this server allows")
    return Resources(memory, cpu, disk, timeout)


def parse_size(given: str | int, place: str) -> int:
    """Return how many bytes ``given`` is: a number of them, or one with a unit such as ``GiB``.

    Raises:
        ShareError: INVALID_ARGUMENT, naming ``place``.
    """
    if isinstance(given, int):
        return given
    match = _SIZE.fullmatch(given.strip())
    if match is None:
        raise _wrong(place, "must be a number of bytes, or one with a unit such as 512MiB or 2GB")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def _cpu(given: str | float) -> float:
    text = str(given).strip()
    try:
        cpu = float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        cpu = math.nan
    if not math.isfinite(cpu):
        raise _wrong("resources.cpu", "must be a number of processors such as 2, 0.5 or 500m")
    return cpu


def _timeout(given: str | float) -> float:
    try:
        seconds = parse_duration(given)
    except ValueError as exc:
        raise _wrong("resources.timeout", str(exc)) from None
    if seconds < _LEAST_TIMEOUT:
        raise _wrong("resources.timeout", f"must be {_LEAST_TIMEOUT:g} s or more")
    return seconds


def _wrong(place: str, why: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, f"{place}: {why}")
