"""What holds for each attempt of :mod:`sandbox.escapes`, whatever the driver.

A driver's tests inherit this, with fixtures ``driver`` and ``places``.
"""

import asyncio
import os
import signal
import socket

import pytest

from rpcshare.sandbox.driver import SandboxLimits
from rpcshare.sandbox.egress_proxy import EgressPolicy, EgressProxy
from sandbox.escapes import ESCAPES, PRELUDE, Escape

__all__ = ["EscapeContract"]

MiB = 2**20
ADDRESSES = {
    "inward.test": ["127.0.0.1"],
    "metadata.test": ["169.254.169.254"],
    "mixed.test": ["93.184.216.34", "10.0.0.1"],
}
LIMITS = SandboxLimits(memory=192 * MiB, processes=48, disk=48 * MiB, timeout=60)


async def resolve(host: str, _port: int) -> list[str]:
    return ADDRESSES.get(host, ["127.0.0.1"])


class EscapeContract:
    """No attempt gets out, and each is seen where its row says."""

    calls_are_seen = True
    """Whether the driver is told of all system calls that are refused: nothing else refuses them before."""

    @pytest.mark.parametrize("escape", ESCAPES, ids=lambda each: each.name)
    async def test_no_attempt_gets_out_and_each_is_seen(
        self, escape: Escape, driver, places, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("SECRET", "a-secret-of-the-server")
        secret, other = tmp_path / "secret", tmp_path / "other"
        secret.write_text("of the server")
        other.mkdir()
        seen: list[str] = []
        policy = EgressPolicy([f"allowed.test:{port}" for port in (443,)] + list(ADDRESSES), [])
        proxy = EgressProxy(
            places.run_dir / "egress",
            policy,
            resolve=resolve,
            on_refused=lambda reason, _host: seen.append(f"egress {reason.value}"),
        )
        await proxy.open()
        listener = socket.create_server(("127.0.0.1", 0))
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind(f"\0rpcshare-test-{os.getpid()}")
        abstract.listen()
        named = socket.socket(socket.AF_UNIX)
        named.bind(str(places.root / "named"))
        named.listen()
        program = escape.program.format(
            secret=secret,
            other=other,
            port=listener.getsockname()[1],
            address="127.0.0.2",
            pid=os.getpid(),
            abstract=f"rpcshare-test-{os.getpid()}",
            socket=places.root / "named",
        )
        limits = SandboxLimits(**{**vars(LIMITS), "timeout": 1.0}) if "timeout" in escape.seen else LIMITS
        spec = places.python(
            PRELUDE + program,
            limits=limits,
            egress_socket=proxy.path,
            on_refused=lambda name: seen.append(f"refused {name}"),
        )
        try:
            sandbox = await driver.start(spec)
            status = await asyncio.wait_for(sandbox.wait(), 90)
        finally:
            await proxy.close()
            for each in (listener, abstract, named):
                each.close()
        assert status.reason is not None
        seen.append(f"ends {status.reason.value}")
        log = sandbox.log_tail(50)
        assert "ESCAPED" not in log, log
        if escape.seen in ("ends memory", "ends processes") and not status.enforced_by["memory"].startswith(
            "cgroup"
        ):
            # Which of the limits is met first is a matter of luck, and one of them is an error inside.
            assert {"ends memory", "ends processes"} & set(seen) or status.exit_code, (seen, status, log)
        elif escape.seen != "error" and (self.calls_are_seen or not escape.seen.startswith("refused")):
            assert escape.seen in seen, (seen, status, log)
        else:
            # The attempt ran to its end: a slip in its program is no wall.
            assert status.exit_code in (0, 128 + signal.SIGSYS, 128 + signal.SIGKILL), log
        assert secret.read_text() == "of the server"
