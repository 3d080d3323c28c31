"""What is not imported by a program that does not need it: imports are most of what a start takes."""

import subprocess
import sys

import pytest

# As the test runner itself has imported nearly everything, each program is a process of its own.
SERVER = """
import sys
import rpcshare.server.run as run

def say_ready(*_):
    print("imported:", *sys.modules)
    run.signal.raise_signal(run.signal.SIGTERM)

run.say_ready = say_ready
from rpcshare.cli import main
main(["serve", "--port=0", "--log-level=critical", "--data-dir=" + sys.argv[1]])
"""
DATABASE = """
import asyncio, sys
from pathlib import Path
from rpcshare.database import DatabaseLocation
from rpcshare.shares.search import open_index

async def listed():
    index = await open_index(DatabaseLocation("", Path(sys.argv[1], "database.sqlite3")))
    await index.warm_up()
    await index.database.close()

asyncio.run(listed())
print("imported:", *sys.modules)
"""


def imported(script: str, *arguments: object) -> set[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(process.stdout.partition("imported:")[2].split())


def test_importing_the_package_imports_no_more_than_tells_which_core_runs():
    found = imported("import sys, rpcshare; print('imported:', *sys.modules)")
    assert "rpcshare.compiled" in found
    unwanted = {"asyncio", "logging", "importlib.abc", "tempfile", "msgspec", "websockets", "anyio"}
    assert not found & unwanted


@pytest.fixture(scope="module")
def of_server(tmp_path_factory) -> set[str]:
    return imported(SERVER, tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("package", "needed_by"),
    [
        ("rich", "progress of commands"),
        ("pygments", "pages"),
        ("markdown_it", "pages"),
        ("jinja2", "pages"),
        ("httpx", "--jwks-url"),
        ("joserfc", "--jwks-url, --jwt-key, view tokens"),
        ("cryptography.x509", "--client-ca"),
        ("cryptography.fernet", "sign-in by a browser"),
        ("websockets.asyncio", "clients"),
        ("python_socks", "clients behind a proxy"),
        ("redis", "--broadcast"),
        ("aiobotocore", "--store s3://"),
        ("asyncpg", "--database postgresql://"),
        ("sqlalchemy", "the first listing, for which it is imported once the server is ready"),
        ("pydantic_settings", "nothing"),
        ("rpcshare.client", "clients"),
        ("rpcshare.sandbox", "--agents"),
        ("rpcshare.workspaces", "--agents"),
        ("rpcshare.gateway.gateway", "--agents"),
        ("rpcshare.server.workspaces_rpc", "--agents"),
        ("rpcshare.maintenance", "other commands"),
        ("rpcshare.server.workers", "--workers"),
        ("rpcshare.server.tls_protocols", "--client-ca"),
    ],
)
def test_a_server_is_ready_without_what_its_settings_do_not_ask_for(of_server, package, needed_by):
    assert "rpcshare.server.app" in of_server
    assert package not in of_server, f"it is for {needed_by}"


def test_an_sqlite_database_needs_no_orm_no_postgresql_and_no_migrations(tmp_path):
    found = imported(DATABASE, tmp_path)
    assert "sqlalchemy" in found
    assert not found & {
        "sqlalchemy.orm",
        "sqlalchemy.ext.asyncio",
        "sqlalchemy.dialects.postgresql",
        "alembic",
    }
