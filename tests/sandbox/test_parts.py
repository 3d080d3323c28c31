"""The parts of a sandbox, each by itself: control groups, the filter, the disk, the log."""

import asyncio
import os
import selectors
import socket
import struct
from pathlib import Path

import pytest

from rpcshare.sandbox import inside
from rpcshare.sandbox.cgroups import ControlGroup, ControlGroups
from rpcshare.sandbox.disk_watch import DiskUsage, DiskWatch, disk_usage
from rpcshare.sandbox.driver import SandboxLimits
from rpcshare.sandbox.log_tail import LogTail
from rpcshare.sandbox.process_tree import process_tree_usage
from rpcshare.sandbox.syscall_filter import syscall_filter

MiB = 2**20
LIMITS = SandboxLimits(memory=64 * MiB, cpus=1.5, processes=20)


def proc(tmp_path: Path, groups: str, mounts: str) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "cgroup").write_text(groups)
    (folder / "mountinfo").write_text(mounts)
    return folder


def test_version_2_is_taken_where_it_has_all_controllers(tmp_path):
    own = tmp_path / "cg" / "server.service"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpu io memory pids")
    (own / "cgroup.subtree_control").write_text("cpu memory pids")
    mounts = f"30 20 0:25 / {tmp_path}/cg rw - cgroup2 cgroup2 rw\n"
    groups = ControlGroups.find(proc(tmp_path, "0::/server.service\n", mounts))
    assert groups.version == "cgroup v2"
    made = groups.make("one", LIMITS)
    assert made is not None
    assert made.is_version_2
    [directory] = own.glob("rpcshare-sandbox-one-*")
    assert (directory / "memory.max").read_text() == str(64 * MiB)
    assert (directory / "pids.max").read_text() == "20"
    assert (directory / "cpu.max").read_text() == "150000 100000"
    assert made.process_files == [directory / "cgroup.procs"]


def test_of_version_2_without_a_controller_version_1_has_it(tmp_path):
    (tmp_path / "cg2").mkdir()
    (tmp_path / "cg2" / "cgroup.controllers").write_text("hugetlb")
    (tmp_path / "mem" / "own").mkdir(parents=True)
    mounts = (
        f"30 20 0:25 / {tmp_path}/cg2 rw - cgroup2 cgroup2 rw\n"
        f"31 20 0:26 / {tmp_path}/mem rw - cgroup cgroup rw,memory\n"
    )
    groups = ControlGroups.find(proc(tmp_path, "4:memory:/own\n0::/\n", mounts))
    assert groups.version == "cgroup v1"
    made = groups.make("one", LIMITS)
    assert made is not None
    assert set(made.directories) == {"memory"}
    [directory] = (tmp_path / "mem" / "own").glob("rpcshare-sandbox-one-*")
    assert (directory / "memory.limit_in_bytes").read_text() == str(64 * MiB)


def test_where_there_are_none_there_is_no_group(tmp_path):
    groups = ControlGroups.find(proc(tmp_path, "", ""))
    assert groups.parents == {}
    assert groups.make("one", LIMITS) is None
    assert ControlGroups.find(tmp_path / "missing").parents == {}


def test_what_a_group_tells_is_read_in_both_versions(tmp_path):
    groups = ControlGroups({"memory": tmp_path, "pids": tmp_path}, is_version_2=True)
    made = groups.make("x", LIMITS)
    assert made is not None
    [directory] = tmp_path.glob("rpcshare-sandbox-x-*")
    (directory / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    (directory / "memory.current").write_text("4096\n")
    (directory / "pids.events").write_text("max 7\n")
    usage = made.usage()
    assert (usage.memory, usage.out_of_memory, usage.refused_processes) == (4096, 2, 7)


def test_which_limits_a_group_of_somebody_else_has_is_read(tmp_path):
    group = ControlGroup(dict.fromkeys(("memory", "pids", "cpu"), tmp_path), is_version_2=True)
    assert group.limited(LIMITS) == frozenset()
    (tmp_path / "memory.max").write_text(f"{64 * MiB}\n")
    (tmp_path / "pids.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert group.limited(LIMITS) == {"memory"}
    (tmp_path / "memory.max").write_text(f"{65 * MiB}\n")
    (tmp_path / "pids.max").write_text("20\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert group.limited(LIMITS) == {"pids", "cpu"}
    first = ControlGroup({"memory": tmp_path, "cpu": tmp_path}, is_version_2=False)
    (tmp_path / "memory.limit_in_bytes").write_text(f"{64 * MiB}\n")
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    assert first.limited(LIMITS) == {"memory"}


def run(program: bytes, number: int, arguments: tuple[int, ...] = (), machine: int = 0xC000003E) -> int:
    """Do what the kernel does with a filter, for the instructions that ours has."""
    data = struct.pack("<iIQ6Q", number, machine, 0, *arguments, *([0] * (6 - len(arguments))))
    accumulator = at = 0
    while True:
        operation, yes, no, value = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x45:
                at += yes if accumulator & value else no
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(operation)


ALLOW, NOTIFY, ENOSYS, KILL = 0x7FFF0000, 0x7FC00000, 0x50026, 0x80000000


@pytest.mark.parametrize(
    ("number", "arguments", "result"),
    [
        (0, (), ALLOW),  # read
        (101, (16,), NOTIFY),  # ptrace
        (321, (), NOTIFY),  # bpf
        (435, (), ENOSYS),  # clone3
        (56, (0x11,), ALLOW),  # clone, as fork
        (56, (0x003D0F00,), ALLOW),  # of a thread
        (56, (0x10000011,), NOTIFY),  # CLONE_NEWUSER
        (56, (0x00020011,), NOTIFY),  # CLONE_NEWNS
        (56, (0xFFFFFFFF_40000011,), NOTIFY),  # CLONE_NEWNET, with rubbish above
        (41, (1,), ALLOW),
        (41, (2,), ALLOW),
        (41, (10,), ALLOW),
        (41, (16, 3, 0), ALLOW),  # NETLINK_ROUTE
        (41, (16, 3, 12), NOTIFY),  # NETLINK_NETFILTER
        (41, (16, 3, 9), NOTIFY),  # NETLINK_AUDIT
        (41, (17,), NOTIFY),  # AF_PACKET
        (41, (40,), NOTIFY),  # AF_VSOCK
        (16, (0, 0x5412), NOTIFY),  # TIOCSTI
        (16, (0, 0xFFFFFFFF_00005412), NOTIFY),
        (16, (0, 0x5401), ALLOW),
        (0x40000000, (), ENOSYS),  # x32
    ],
)
def test_the_filter_decides_as_it_says(number, arguments, result):
    made = syscall_filter("x86_64")
    assert made is not None
    assert run(made.program, number, arguments) == result


def test_a_call_of_another_machine_is_the_end():
    for name, own in (("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)):
        made = syscall_filter(name)
        assert made is not None
        assert run(made.program, 0, machine=0x40000003) == KILL
        assert run(made.program, 63, machine=own) == ALLOW
    assert syscall_filter("riscv128") is None


def test_disk_usage_is_what_is_allocated_each_file_once(tmp_path):
    (tmp_path / "a").write_bytes(bytes(MiB))
    os.link(tmp_path / "a", tmp_path / "b")
    os.truncate(os.open(tmp_path / "sparse", os.O_CREAT | os.O_RDWR), 1 << 40)
    (tmp_path / "out").symlink_to("/usr")
    usage = disk_usage([tmp_path])
    assert MiB <= usage.size < 2 * MiB
    assert usage.files == 4


def test_a_tree_that_is_too_deep_is_told_and_not_followed(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert disk_usage([tmp_path]).is_too_deep
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_watch_tells_when_it_is_too_much(tmp_path):
    watch = asyncio.ensure_future(DiskWatch([tmp_path], 20 * MiB, 1000).until_exceeded())
    await asyncio.sleep(0.1)
    assert not watch.done()
    for number in range(10):
        (tmp_path / str(number)).write_bytes(os.urandom(4 * MiB))
    assert (await asyncio.wait_for(watch, 60)).exceeds(20 * MiB, 1000)


def test_counting_ends_where_it_is_too_much(tmp_path):
    for number in range(100):
        (tmp_path / str(number)).touch()
    assert disk_usage([tmp_path], DiskUsage(MiB, 10)).files == 11


def test_the_log_keeps_its_end_and_shows_no_control_characters(tmp_path):
    log = LogTail(tmp_path / "log")
    log.write(b"x" * 100_000 + b"\n\x1b[31mred\x07\nlast \xff\n")
    assert log.last(2) == "\ufffd[31mred\ufffd\nlast \ufffd"
    log.close()
    assert (tmp_path / "log").stat().st_size > 100_000


def test_a_log_file_is_never_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=r"link|loop|Too many"):
        LogTail(tmp_path / "link")


def test_a_tree_of_processes_is_counted():
    usage = process_tree_usage(os.getpid())
    assert usage.processes is not None
    assert usage.processes >= 1
    assert (usage.memory or 0) > MiB


def test_a_connection_whose_ends_are_both_ready_is_closed_once():
    """The second of two events of one round comes to a pair that the first has closed."""
    control, server = socket.socketpair()
    outside, near = socket.socketpair()
    inner, far = socket.socketpair()
    loop = inside.Loop(control)
    loop.connections = 1
    try:
        pair = inside.Pair(loop, near, far)
        outside.close()
        inner.close()
        for index in (0, 1, 0, 1):  # both ends of both directions, and then some that come too late
            pair.on_ready(index, selectors.EVENT_READ)
        assert loop.connections == 0
        assert (near.fileno(), far.fileno()) == (-1, -1)
    finally:
        loop.selector.close()
        for each in (control, server, outside, inner, near, far):
            each.close()
