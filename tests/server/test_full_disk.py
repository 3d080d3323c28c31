"""A server on a full disk: what was readable stays so, it says what is wrong, and it goes on with room."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.running_server import RunningServer


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk")
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(mounted)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no disk can be mounted here")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


def fill(http: httpx.Client, share_id: str, size: int) -> None:
    """Sync until there is no room for ``size`` bytes."""
    for number in range(10_000):
        text = random.randbytes(size).hex()
        part = {"type": "part", "data": {"id": f"prt_{number}", "text": text}}
        if http.post(f"/api/share/{share_id}/sync", json={"data": [part]}).status_code == 503:
            return
    raise AssertionError("the disk is never full")


@pytest.mark.slow
def test_what_is_there_stays_readable_and_all_goes_on_when_there_is_room(disk: Path) -> None:
    headers = {"Authorization": ""}
    with (
        RunningServer(disk / "data") as server,
        httpx.Client(base_url=server.url, headers=headers, timeout=20) as http,
    ):
        http.headers["Authorization"] = f"Bearer {server.token}"
        share_id = http.post("/api/share", json={"sessionID": "ses_full_0001"}).json()["id"]
        assert http.get("/readyz").status_code == 200
        for size in (250_000, 20_000, 2_000, 200):
            fill(http, share_id, size)
        ready = http.get("/readyz")
        assert ready.status_code == 503
        assert "full" in ready.json()["error"]
        assert str(disk) not in ready.text

        for _ in range(2):
            assert http.delete(f"/api/share/{share_id}").status_code == 503
            for path in ("", "/data", "/metadata"):
                assert http.get(f"/api/share/{share_id}{path}").status_code == 200
            assert http.get(f"/share/{share_id}").status_code == 200

        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        assert http.get("/readyz").status_code == 200
        assert http.post(f"/api/share/{share_id}/sync", json={"data": []}).status_code == 200
        assert http.delete(f"/api/share/{share_id}").status_code == 200
        assert http.get(f"/api/share/{share_id}").status_code == 404
        metrics = http.get("/metrics").text
        for name in ("store_file_bytes", "store_wal_bytes", "store_disk_free_bytes"):
            assert f"\nrpcshare_{name} " in metrics
