"""docs/moving.md, as it stands: from a bucket as the worker left it to a client that goes on as it did."""

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4, uuid5

import httpx
import pytest
from test_fork_clients import SHARED_SECRET, Place, put_as_worker

from support.forks import CLIENTS_OF_FORKS, MISSING, Fork, is_available, project
from support.running_server import RPCSHARE, bare_environment

pytestmark = [
    pytest.mark.rare,
    pytest.mark.node,
    pytest.mark.skipif(not is_available(), reason=MISSING),
    pytest.mark.timeout(240),
]

WALK = (Path(__file__).parents[2] / "docs" / "moving.md").read_text()
IMPORT, SERVE, IMPORT_FOR_OWNER = re.findall(r"```sh\n(.*?)```", WALK, re.DOTALL)
PUBLIC_URL = "https://sessions.example"
KEY = "0f0b2b1c-8a52-4f53-9d52-0a0f5f0a4c11"


@pytest.fixture(scope="module")
def fork_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("fork") / "project")


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """The environment in which the commands of the page are run."""
    return bare_environment(
        PATH=f"{Path(RPCSHARE).parent}:{os.environ['PATH']}",
        BUCKET=f"sqlite:///{tmp_path}/bucket",
        DATA=str(tmp_path / "data"),
        PUBLIC_URL=PUBLIC_URL,
        SESSIONS_SHARED_SECRET=str(SHARED_SECRET),
        SESSIONS_RPC_SHARED_KEY=KEY,
        RPCSHARE_PORT="0",
    )


@contextmanager
def served(variables: dict[str, str]) -> Iterator[str]:
    """Serve as the page says, and yield where."""
    with subprocess.Popen(
        ["sh", "-c", f"exec {SERVE}"], env=variables, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            (url,) = re.findall(r"listening on (http\S+)", line)
            yield url
        finally:
            process.terminate()


class Server:
    def __init__(self, url: str) -> None:
        self.url, self.token = url, KEY


def run(command: str, variables: dict[str, str]) -> str:
    finished = subprocess.run(
        ["sh", "-c", command], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("client", CLIENTS_OF_FORKS)
def test_links_and_secrets_are_the_same_and_shares_are_live_again(
    client: str, fork_project: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    session = f"ses_{uuid4().hex}"
    share_id, secret = session[-8:], str(uuid5(SHARED_SECRET, session))
    row = {"id": share_id, "secret": secret, "url": f"{PUBLIC_URL}/share/{share_id}"}
    database = tmp_path / "fork.db"
    with Fork(fork_project, client, database, "http://127.0.0.1:9", KEY) as fork:
        fork.there(session, 5)
        fork.putRow(session, row)
        held = fork.held(session)
    asyncio.run(put_as_worker(variables["BUCKET"], session, secret, held))

    assert "imported: 1" in run(IMPORT, variables)
    with served(variables) as url:
        assert httpx.get(f"{url}/share/{share_id}").status_code == 200  # with nobody's key
        place = Place(fork_project, tmp_path, client, Server(url))  # type: ignore[arg-type]
        place.session = session
        with Fork(fork_project, client, database, url, KEY) as fork:
            fork.say(session, 5)
            assert place.settled(fork, share_id) == "equal"
            assert fork.create(session) == row
            assert fork.row(session) == row
            fork.say(session, 6)
            assert place.settled(fork, share_id) == "equal"
            fork.remove(session)
        assert httpx.get(f"{url}/share/{share_id}").status_code == 404


def test_a_key_gets_the_shares_that_were_imported_for_it(variables: dict[str, str], tmp_path: Path) -> None:
    session = f"ses_{uuid4().hex}"
    secret = str(uuid5(SHARED_SECRET, session))
    empty = {"session": {"id": session}, "messages": [], "parts": [], "diffs": []}
    asyncio.run(put_as_worker(variables["BUCKET"], session, secret, empty))
    run(IMPORT, variables)
    assert "given to the owner: 1" in run(IMPORT_FOR_OWNER, variables)
    keys = [
        run(f'rpcshare keys create {name} --data-dir "$DATA"', variables).split()[-1]
        for name in ("laptop", "other")
    ]
    with served(variables) as url:
        laptop, other = (
            httpx.post(f"{url}/k/{key}/api/share", json={"sessionID": session}).json() for key in keys
        )
    assert laptop == {"id": session[-8:], "secret": secret, "url": f"{PUBLIC_URL}/share/{session[-8:]}"}
    assert other["id"] != laptop["id"]
    assert other["secret"] != secret
