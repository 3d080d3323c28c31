"""What a user takes for the server's, however many workers it has: limits, metrics, the audit log, expiry."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import rpcshare
from support.running_server import RunningServer
from support.several_workers import only_one_accepts, until, worker_pids

pytestmark = pytest.mark.slow  # real servers, several of them at a time


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[RunningServer]:
    options = ("--max-creates=4", "--max-failed-authentications=4", "--max-connections=3")
    with RunningServer(tmp_path / "data", "--workers=2", *options) as server:
        yield server


@pytest.fixture
def two(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "data", "--workers=2") as server:
        yield server


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def http_of_both():
    with ExitStack() as stack:
        yield lambda server: [stack.enter_context(http_of(server, number)) for number in range(2)]


@contextmanager
def http_of(server: RunningServer, number: int) -> Iterator[httpx.Client]:
    """Give a client whose connection one of the workers serves."""
    with httpx.Client(base_url=server.url) as client:
        with only_one_accepts(server, number):
            client.get("/healthz")
        yield client


# --- limits -----------------------------------------------------------------------------------------


def test_wrong_credentials_count_wherever_they_are_shown(limited: RunningServer, http_of_both) -> None:
    here, there = http_of_both(limited)
    shown = [
        client.get("/api/my-sessions", headers=bearer(f"wrong-{n}")).status_code
        for n, client in enumerate([here, there, here, there])
    ]
    assert shown == [401] * 4
    for client in (here, there):
        refused = client.get("/api/my-sessions", headers=bearer("wrong-5"))
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")


def test_what_was_right_at_one_is_no_guess_at_the_other(limited: RunningServer, http_of_both) -> None:
    here, there = http_of_both(limited)
    assert here.get("/api/my-sessions", headers=bearer(limited.token)).status_code == 200
    for n in range(5):
        there.get("/api/my-sessions", headers=bearer(f"wrong-{n}"))
    assert there.get("/api/my-sessions", headers=bearer("wrong-5")).status_code == 429
    assert there.get("/api/my-sessions", headers=bearer(limited.token)).status_code == 200


def test_creates_count_wherever_they_are_made(limited: RunningServer, http_of_both) -> None:
    here, there = http_of_both(limited)
    made = [
        client.post(
            "/api/share", json={"sessionID": f"ses_{n:012}"}, headers=bearer(limited.token)
        ).status_code
        for n, client in enumerate([here, there, here, there, here, there])
    ]
    assert made == [200, 200, 200, 200, 429, 429]


class Sockets:
    """WebSockets that are open, each with a worker of its own choice."""

    def __init__(self, server: RunningServer, stack: ExitStack) -> None:
        self.server, self.stack = server, stack

    def open_at(self, number: int) -> int:
        """Return the status of a handshake; a socket that it opened stays open."""
        url = self.server.url.replace("http", "ws") + "/rpc"
        headers = bearer(self.server.token)
        with only_one_accepts(self.server, number):
            try:
                self.stack.enter_context(connect(url, additional_headers=headers, proxy=None))
            except InvalidStatus as refused:
                return refused.response.status_code
        return 101


def test_connections_count_wherever_they_are_open(limited: RunningServer) -> None:
    with ExitStack() as lasting:
        with ExitStack() as one:
            assert Sockets(limited, one).open_at(0) == 101
            sockets = Sockets(limited, lasting)
            assert [sockets.open_at(number) for number in (1, 0, 0, 1)] == [101, 101, 429, 429]
        until(lambda: sockets.open_at(1) == 101, "a place for another")
        assert [sockets.open_at(number) for number in (0, 1)] == [429, 429]


def test_connections_of_a_worker_that_died_count_no_more(limited: RunningServer) -> None:
    with ExitStack() as stack:
        sockets = Sockets(limited, stack)
        assert [sockets.open_at(number) for number in (0, 0, 1, 1)] == [101, 101, 101, 429]
        lasting = worker_pids(limited)[1]
        os.kill(worker_pids(limited)[0], signal.SIGKILL)
        until(lambda: "a worker serves again" in limited.log.read_text(), "word of the new worker")
        order = sorted(range(2), key=lambda number: worker_pids(limited)[number] != lasting)
        # The new one has been told of what is open at the other.
        assert [sockets.open_at(number) for number in (*order, *order)] == [101, 101, 429, 429]


# --- metrics ----------------------------------------------------------------------------------------


def requests_to(client: httpx.Client, route: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == "rpcshare_http_requests_total" and sample.labels["route"] == route
    )


def number(client: httpx.Client, name: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def test_a_scrape_shows_the_sum_whichever_is_asked(two: RunningServer, http_of_both) -> None:
    clients = http_of_both(two)
    for client, times in zip(clients, (3, 4), strict=True):
        for _ in range(times):
            assert client.get("/readyz").status_code == 200
    with only_one_accepts(two, 0):
        connection = rpcshare.connect(two.url, token=two.token)
        api = await connection.__aenter__()
        share = await api.createShare("ses_metrics_00000001", [])
    await api.subscribe(share["id"], print)
    for client in clients:
        assert requests_to(client, "/readyz") == 7
        assert number(client, "rpcshare_rpc_sessions") == 1
        assert number(client, "rpcshare_subscribers") == 1
        assert number(client, "rpcshare_shares_created_total") == 1
        assert number(client, "rpcshare_workers") == 2
    await connection.__aexit__(None, None, None)
    await asyncio.to_thread(
        until, lambda: number(clients[1], "rpcshare_rpc_sessions") == 0, "the end of the session"
    )


async def test_of_a_worker_that_died_counts_what_it_did_and_not_what_it_held(
    two: RunningServer, http_of_both
) -> None:
    doomed, lasting = http_of_both(two)
    with only_one_accepts(two, 0):
        connection = rpcshare.connect(two.url, token=two.token)
        api = await connection.__aenter__()
        await api.whoami()
    for client in (doomed, lasting):
        for _ in range(5):
            client.get("/readyz")
    assert requests_to(lasting, "/readyz") == 10
    assert number(lasting, "rpcshare_rpc_sessions") == 1
    for turn in range(2):
        os.kill(worker_pids(two)[0], signal.SIGKILL)
        until(lambda t=turn: two.log.read_text().count("serves again") > t, "word of the new worker")
        with httpx.Client(base_url=two.url) as anybody:
            for client in (lasting, anybody, lasting) if turn == 0 else (anybody,):
                assert requests_to(client, "/readyz") == 10
                assert number(client, "rpcshare_rpc_sessions") == 0
                assert number(client, "rpcshare_workers") == 2
    await connection.__aexit__(None, None, None)


# --- the audit log, and what is done once -----------------------------------------------------------


@pytest.mark.slow
def test_lines_of_the_audit_log_are_whole_whoever_writes_them(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    with RunningServer(tmp_path / "data", "--workers=2", f"--audit-log={log}") as server:

        def create(number: int, client: httpx.Client) -> list[str]:
            bodies = [{"sessionID": f"ses_{n:07}_{number}"} for n in range(50)]
            made = [client.post("/api/share", json=body, headers=bearer(server.token)) for body in bodies]
            return [answer.json()["id"] for answer in made]

        with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
            clients = [stack.enter_context(http_of(server, n % 2)) for n in range(8)]
            ids = [share_id for made in pool.map(create, range(8), clients) for share_id in made]
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(line["share"] for line in lines) == sorted(ids)
    assert all(set(line) == {"time", "action", "outcome", "subject", "address", "share"} for line in lines)


def test_a_log_line_says_which_worker_it_is_of(tmp_path: Path) -> None:
    options = ("--workers=2", "--log-format=json")
    with RunningServer(tmp_path / "data", *options) as server:
        httpx.get(f"{server.url}/api/my-sessions", headers=bearer("wrong"))
        line = json.loads(server.log.read_text().splitlines()[-1])
    assert line["logger"] == "rpcshare.audit"
    assert line["worker"] in (0, 1)


def test_what_expires_is_removed_once(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    with RunningServer(tmp_path / "data", "--workers=2", f"--audit-log={log}") as server:
        with httpx.Client(base_url=server.url, headers=bearer(server.token)) as client:
            body = {"sessionID": "ses_expires_00000001", "expiresIn": 1}
            share = client.post("/api/share", json=body).json()
            path = f"/api/share/{share['id']}"
            until(lambda: client.get(path).status_code == 410, "the end of the share")
        until(lambda: "share.expire" in log.read_text(), "word of its removal")
        assert server.stop() == 0
    actions = [json.loads(line)["action"] for line in log.read_text().splitlines()]
    assert actions.count("share.expire") == 1
