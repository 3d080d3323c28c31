"""The seccomp filter of a sandbox: what no program in one needs of the kernel, and break-outs are made of.

It is a deny list: a program may do what programs do. It is refused new namespaces and mounts, the memory of
other processes, keyrings, the kernel's programmable parts (BPF, io_uring, userfaultfd, perf), and sockets of
families that a network namespace does not keep in, such as AF_VSOCK, which reaches a virtual machine's host.

What is refused is handed to the sandbox's init, which answers with an error and tells of it. clone3 does not
exist inside, as a filter cannot look at its flags; C libraries then use clone.

Sources: linux/seccomp.h, linux/filter.h, linux/audit.h; asm/unistd_64.h and asm-generic/unistd.h for numbers.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["SyscallFilter", "syscall_filter"]

_ALLOW = 0x7FFF0000
_NOTIFY = 0x7FC00000
_ERRNO = 0x00050000
_KILL_PROCESS = 0x80000000
_ENOSYS = 38

# Instructions: class, mode and operation as linux/filter.h has them.
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_GREATER_OR_EQUAL = 0x35
_IF_ANY_BIT = 0x45
_RETURN = 0x06

# Offsets in struct seccomp_data. Both machines are little-endian: the low half of an argument comes first.
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16

_X32 = 0x40000000  # numbers of x86-64's 32-bit ABI begin here

# CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NEW_NAMESPACES = 0x80 | 0x20000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_CLONE_NEWTIME = (
    0x80  # of clone, the low byte is the signal of the end of a child: it cannot ask for this one
)

_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
_NETLINK = 16
_NETLINK_ROUTE = 0  # by which programs list the interfaces; the others are ways into the kernel
_TERMINAL_INPUT = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}

# Of x86-64, and of all machines that are newer, such as AArch64.
_NUMBERS: Mapping[str, tuple[int, int]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
_CLONE, _CLONE3, _SOCKET, _SOCKETPAIR, _IOCTL = (56, 220), (435, 435), (41, 198), (53, 199), (16, 29)
_CHROOT = (161, 51)
_X86_ONLY = {"iopl": 172, "ioperm": 173, "create_module": 174, "modify_ldt": 154, "uselib": 134}

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class SyscallFilter(NamedTuple):
    """A program for the kernel, and what the calls are called that it refuses."""

    program: bytes
    """An array of ``struct sock_filter``."""
    names: Mapping[int, str]


class _Jump(NamedTuple):
    operation: int
    value: int
    target: str
    """The label to go to if it is so; otherwise the next instruction follows."""


def syscall_filter(machine: str | None = None) -> SyscallFilter | None:
    """Return the filter for a machine, named as :func:`platform.machine` does; None: there is none for it."""
    column, audit = _MACHINES.get(machine or platform.machine(), (-1, 0))
    if column < 0:
        return None
    refused = {numbers[column]: name for name, numbers in _NUMBERS.items()}
    refused[_CHROOT[column]] = "chroot"
    code: list[_Jump | str | tuple[int, int]] = [
        (_LOAD, _MACHINE),
        _Jump(_IF_EQUAL, audit, "machine"),
        (_RETURN, _KILL_PROCESS),
        "machine",
        (_LOAD, _NUMBER),
    ]
    if column == 0:
        refused |= {number: name for name, number in _X86_ONLY.items()}
        code.append(_Jump(_IF_GREATER_OR_EQUAL, _X32, "missing"))
    code += [_Jump(_IF_EQUAL, number, "notify") for number in refused]
    code += [
        _Jump(_IF_EQUAL, _CLONE3[column], "missing"),
        _Jump(_IF_EQUAL, _CLONE[column], "clone"),
        _Jump(_IF_EQUAL, _SOCKET[column], "socket"),
        _Jump(_IF_EQUAL, _SOCKETPAIR[column], "socket"),
        _Jump(_IF_EQUAL, _IOCTL[column], "ioctl"),
        (_RETURN, _ALLOW),
        "clone",
        (_LOAD, _ARGUMENTS),
        _Jump(_IF_ANY_BIT, _NEW_NAMESPACES & ~_CLONE_NEWTIME, "notify"),
        (_RETURN, _ALLOW),
        "socket",
        (_LOAD, _ARGUMENTS),
        *(_Jump(_IF_EQUAL, family, "allow") for family in _FAMILIES.values()),
        _Jump(_IF_EQUAL, _NETLINK, "netlink"),
        (_RETURN, _NOTIFY),
        "netlink",
        (_LOAD, _ARGUMENTS + 16),
        _Jump(_IF_EQUAL, _NETLINK_ROUTE, "allow"),
        (_RETURN, _NOTIFY),
        "ioctl",
        (_LOAD, _ARGUMENTS + 8),
        *(_Jump(_IF_EQUAL, request, "notify") for request in _TERMINAL_INPUT.values()),
        "allow",
        (_RETURN, _ALLOW),
        "notify",
        (_RETURN, _NOTIFY),
        "missing",
        (_RETURN, _ERRNO | _ENOSYS),
    ]
    names = {
        **refused,
        _CLONE[column]: "clone",
        _SOCKET[column]: "socket",
        _SOCKETPAIR[column]: "socketpair",
        _IOCTL[column]: "ioctl",
    }
    return SyscallFilter(_assembled(code), names)


def _assembled(code: list[_Jump | str | tuple[int, int]]) -> bytes:
    places: dict[str, int] = {}
    count = 0
    for line in code:
        if isinstance(line, str):
            places[line] = count
        else:
            count += 1
    instructions: list[bytes] = []
    for line in code:
        if isinstance(line, str):
            continue
        if isinstance(line, _Jump):
            distance = places[line.target] - len(instructions) - 1  # at most 255, which struct checks
            instructions.append(struct.pack("<HBBI", line.operation, distance, 0, line.value))
        else:
            operation, value = line
            instructions.append(struct.pack("<HBBI", operation, 0, 0, value))
    return b"".join(instructions)
