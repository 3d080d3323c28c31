"""What a process and all that it has started use, where no control group counts it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from rpcshare.sandbox.cgroups import GroupUsage

__all__ = ["process_tree_usage"]

_PAGE = os.sysconf("SC_PAGE_SIZE")


def process_tree_usage(root: int, proc: Path = Path("/proc")) -> GroupUsage:
    """Return the memory and the number of processes of a tree, of whose processes ``root`` is the first.

    Memory is what each has for itself: what they share with each other or with files is not counted.
    """
    parents: dict[int, int] = {}
    for entry in proc.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name of the program, in parentheses, may have spaces and parentheses in it.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    children: dict[int, list[int]] = {}
    for process, parent in parents.items():
        children.setdefault(parent, []).append(process)
    memory = count = 0
    waiting = [root] if root in parents else []
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, ())
        count += 1
        with contextlib.suppress(OSError, ValueError, IndexError):
            _, resident, shared, *_ = (proc / str(process) / "statm").read_text().split()
            memory += (int(resident) - int(shared)) * _PAGE
    return GroupUsage(memory, count)
