"""What every sandbox driver does. A driver's tests inherit this, with fixtures ``driver`` and ``places``."""

import asyncio
import os
import socket
from pathlib import Path, PurePosixPath

import pytest

from rpcshare.sandbox.driver import (
    EndReason,
    Mount,
    SandboxDriver,
    SandboxError,
    SandboxLimits,
    SandboxStatus,
)
from sandbox.places import Places

__all__ = ["DriverContract"]

MiB = 2**20

ECHO = """
import socket
listener = socket.create_server(("127.0.0.1", 4096))
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    data = connection.recv(100)
    connection.sendall(b"echo " + data)
    connection.close()
"""

FORKS = """
import os, time
end = time.monotonic() + 20
while time.monotonic() < end:
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    except OSError:
        pass
"""


class DriverContract:
    """The tests."""

    async def run(self, driver: SandboxDriver, spec, within: float = 60.0) -> tuple[SandboxStatus, str]:
        sandbox = await driver.start(spec)
        status = await asyncio.wait_for(sandbox.wait(), within)
        return status, sandbox.log_tail(200)

    async def test_a_command_s_status_and_output_are_known(
        self, driver: SandboxDriver, places: Places
    ) -> None:
        status, log = await self.run(driver, places.shell("echo out; echo err >&2; exit 3"))
        assert (status.running, status.reason, status.exit_code) == (False, EndReason.EXITED, 3)
        assert log.splitlines() == ["out", "err"]

    async def test_its_output_can_be_opened_by_name(self, driver, places) -> None:
        """As scripts do that log to /dev/stderr."""
        status, log = await self.run(driver, places.shell("echo out > /dev/stdout; echo err > /dev/stderr"))
        assert (status.exit_code, log.splitlines()) == (0, ["out", "err"])

    async def test_a_command_that_is_not_there_ends_with_127(self, driver, places) -> None:
        status, log = await self.run(driver, places.spec("no-such-program"))
        assert status.exit_code == 127
        assert "no-such-program" in log

    async def test_it_works_on_the_workspace_and_the_home(self, driver, places) -> None:
        (places.workspace / "given").write_text("to be read")
        script = 'cat given; pwd; echo kept > made; echo mine > "$HOME/own"; id -u'
        status, log = await self.run(driver, places.shell(script))
        assert (status.exit_code, log.splitlines()[:1]) == (0, ["to be read/workspace"])
        assert (places.workspace / "made").read_text() == "kept\n"
        assert (places.home / "own").read_text() == "mine\n"
        assert log.splitlines()[-1] != "0"

    async def test_its_environment_is_what_it_was_given(self, driver, places, monkeypatch) -> None:
        monkeypatch.setenv("RPCSHARE_TOKEN", "a-secret-of-the-server")
        _, log = await self.run(driver, places.shell("env", environment={"GIVEN": "yes"}))
        names = {line.partition("=")[0] for line in log.splitlines()}
        assert "GIVEN" in names
        assert {"PATH", "HOME", "LANG", "TMPDIR"} <= names
        assert "a-secret-of-the-server" not in log
        assert not {name for name in names if name.startswith(("RPCSHARE", "AWS", "PYTEST"))}

    async def test_its_environment_is_in_no_command_line_of_the_machine(self, driver, places) -> None:
        sandbox = await driver.start(places.shell("sleep 30", environment={"KEY": "sk-not-to-be-listed"}))
        lines = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(process.read_bytes())
            except OSError:
                continue
        assert [line for line in lines if b"sk-not-to-be-listed" in line] == []
        await sandbox.terminate(grace=0.1)

    async def test_it_sees_what_programs_expect_of_a_system(self, driver, places) -> None:
        script = "id -un; cat /etc/passwd /etc/hosts > /dev/null && ls / > /dev/null && test -w /tmp; echo $?"
        status, log = await self.run(driver, places.shell(script))
        assert (status.exit_code, log.splitlines()) == (0, ["agent", "0"]), log
        if Path("/etc/ssl/certs").is_dir():
            status, _ = await self.run(driver, places.shell("ls /etc/ssl/certs > /dev/null"))
            assert status.exit_code == 0

    async def test_a_mount_is_read_only(self, driver, places) -> None:
        other = places.root / "other"
        other.mkdir()
        (other / "file").write_text("of another")
        if os.geteuid() == 0:
            os.chown(other, 65534, 65534)
        mount = Mount(other, PurePosixPath("/mnt/other"))
        script = (
            "cat /mnt/other/file; cd /mnt/other; touch new && echo written; echo x > file && echo written"
        )
        _, log = await self.run(driver, places.shell(script, mounts=(mount,)))
        assert "of another" in log
        assert "written" not in log
        assert (other / "file").read_text() == "of another"

    async def test_it_is_reached_on_its_port_by_a_socket(self, driver, places) -> None:
        sandbox = await driver.start(places.python(ECHO, port=4096))
        async with asyncio.timeout(20):
            while "listening" not in sandbox.log_tail():
                await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_unix_connection(sandbox.socket_path)
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.read(), 20) == b"echo hello"
        writer.close()
        status = await sandbox.terminate(grace=0.1)
        assert status.reason is EndReason.TERMINATED
        assert not sandbox.socket_path.exists()

    async def test_a_port_on_which_nothing_listens_is_closed_at_once(self, driver, places) -> None:
        sandbox = await driver.start(places.shell("sleep 30", port=4096))
        reader, writer = await asyncio.open_unix_connection(sandbox.socket_path)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        await sandbox.terminate(grace=0.1)

    async def test_it_reaches_the_sockets_that_it_was_given(self, driver, places) -> None:
        async def greet(reader, writer):
            writer.write(b"from the server")
            writer.close()

        path = places.run_dir / "gateway"
        server = await asyncio.start_unix_server(greet, path)
        path.chmod(0o666)
        script = "import socket; s = socket.create_connection(('127.0.0.1', 8080)); print(s.recv(100))"
        _, log = await self.run(driver, places.python(script, sockets={8080: path}))
        assert "from the server" in log
        server.close()

    async def test_without_a_socket_it_has_no_network(self, driver, places) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        script = f"""
import socket
for host in ("127.0.0.1", "192.0.2.1", "::1"):
    try:
        socket.create_connection((host, {port}), timeout=3)
        print("connected", host)
    except OSError:
        pass
try:
    print("resolved", socket.getaddrinfo("example.com", 80))
except OSError:
    pass
"""
        status, log = await self.run(driver, places.python(script))
        assert (status.exit_code, log) == (0, "")
        listener.close()

    async def test_sigterm_lets_it_end_by_itself(self, driver, places) -> None:
        sandbox = await driver.start(
            places.shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done")
        )
        async with asyncio.timeout(20):
            while "up" not in sandbox.log_tail():
                await asyncio.sleep(0.01)
        status = await sandbox.terminate(grace=20)
        assert status.reason is EndReason.TERMINATED
        assert "bye" in sandbox.log_tail()

    async def test_what_ignores_sigterm_is_killed_with_all_that_it_has_started(self, driver, places) -> None:
        mark = 345_000 + os.getpid() % 1000  # not that of a process that tests another driver
        script = f"trap '' TERM; (setsid sleep {mark} &) ; echo up; while :; do sleep 0.1; done"
        sandbox = await driver.start(places.shell(script))
        async with asyncio.timeout(20):
            while "up" not in sandbox.log_tail():
                await asyncio.sleep(0.01)
        await asyncio.wait_for(sandbox.terminate(grace=0.2), 20)
        left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _reads(path, b"sleep\x00%d" % mark)]
        assert left == []

    async def test_what_a_command_leaves_behind_ends_with_it(self, driver, places) -> None:
        status, _ = await self.run(driver, places.shell("setsid sleep 346 & exit 0"), within=20)
        assert status.reason is EndReason.EXITED
        left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _reads(path, b"sleep\x00346")]
        assert left == []

    async def test_memory_ends_it(self, driver, places) -> None:
        limits = SandboxLimits(memory=96 * MiB)
        script = "blocks = []\nwhile True: blocks.append(bytearray(8 << 20))"
        sandbox = await driver.start(places.python(script, limits=limits))
        status = await asyncio.wait_for(sandbox.wait(), 60)
        assert status.reason in (EndReason.MEMORY, EndReason.EXITED)
        if status.enforced_by["memory"].startswith("cgroup"):
            assert status.reason is EndReason.MEMORY
            assert f"{96 * MiB:,} bytes of memory" in status.message
        else:
            assert status.exit_code != 0
            assert "MemoryError" in sandbox.log_tail()

    async def test_memory_of_files_in_tmp_ends_it_or_is_refused(self, driver, places) -> None:
        limits = SandboxLimits(memory=96 * MiB)
        script = (
            "head -c 200M /dev/zero > /tmp/a || head -c 200M /dev/zero > /dev/shm/b || echo refused; sleep 2"
        )
        status, log = await self.run(driver, places.shell(script, limits=limits))
        assert status.reason is EndReason.MEMORY or "refused" in log

    async def test_processes_without_end_end_it(self, driver, places) -> None:
        status, _ = await self.run(driver, places.python(FORKS, limits=SandboxLimits(processes=40)))
        assert status.reason is EndReason.PROCESSES
        assert "40 processes" in status.message

    async def test_a_full_disk_ends_it(self, driver, places) -> None:
        script = "i=0; while [ $i -lt 400 ]; do head -c 4M /dev/zero > f$i; i=$((i+1)); sleep 0.01; done"
        status, _ = await self.run(driver, places.shell(script, limits=SandboxLimits(disk=40 * MiB)))
        assert status.reason is EndReason.DISK
        assert f"{40 * MiB:,} bytes" in status.message

    async def test_files_without_end_end_it(self, driver, places) -> None:
        script = "import time\nfor n in range(10**6): open(f'f{n}', 'w').close()\ntime.sleep(40)"
        status, _ = await self.run(driver, places.python(script, limits=SandboxLimits(files=2000)))
        assert status.reason is EndReason.DISK

    async def test_one_file_is_no_longer_than_the_disk(self, driver, places) -> None:
        script = "exec python3 -c \"import os; f=open('x','wb'); os.truncate('x', 1 << 40)\" || exit 9"
        status, _ = await self.run(driver, places.shell(script, limits=SandboxLimits(disk=40 * MiB)))
        assert status.reason is EndReason.DISK or status.exit_code

    async def test_time_ends_it(self, driver, places) -> None:
        status, _ = await self.run(driver, places.shell("sleep 60", limits=SandboxLimits(timeout=0.5)))
        assert status.reason is EndReason.TIMEOUT
        assert "0.5 s" in status.message

    async def test_a_workspace_that_is_gone_is_a_sentence(self, driver, places) -> None:
        places.workspace.rmdir()
        with pytest.raises(SandboxError, match="could not be started"):
            await driver.start(places.shell("true"))

    async def test_it_tells_what_enforces_each_limit(self, driver, places) -> None:
        status, _ = await self.run(driver, places.shell("true"))
        assert set(status.enforced_by) == {"memory", "processes", "cpu", "disk", "timeout"}

    async def test_two_at_once_do_not_see_each_other(self, driver, places) -> None:
        one = await driver.start(places.shell("echo up; sleep 347", name="one"))
        _, log = await self.run(driver, places.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", name="two"))
        assert "sleep 347" not in log
        await one.terminate(grace=0.1)

    async def test_closing_the_driver_ends_all(self, driver, places) -> None:
        sandbox = await driver.start(places.shell("sleep 348"))
        await driver.close()
        status = await asyncio.wait_for(sandbox.wait(), 20)
        assert status.reason is EndReason.TERMINATED


def _reads(path: Path, text: bytes) -> bool:
    try:
        return text in path.read_bytes()
    except OSError:
        return False
