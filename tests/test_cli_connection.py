"""Which server a command talks to, as whom, and what it says when that fails."""

import asyncio
import json
import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from rpcshare.cli import main
from rpcshare.cli.connection import Server, with_share
from rpcshare.rpc import Connection, RpcError, RpcTarget, WebSocketTransport, rpc_method

NOBODY = "http://127.0.0.1:1"  # where no server is


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run_command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_one_line(result: Result, status: int = 1) -> str:
    """Return the only line printed, which is on standard error."""
    assert (result.exit_code, result.stdout) == (status, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("rpcshare: ")


@click.command()
@with_share
def probe(server: Server, share_id: str) -> None:
    click.echo(json.dumps([server.url, server.token, share_id]))


OWN, OTHER = "https://own.example", "https://other.example"


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        (["abcdefgh"], "http://127.0.0.1:8787"),
        (["abcdefgh", "--url", OWN], OWN),
        ([f"{OTHER}/share/abcdefgh"], f"{OTHER}/rpc"),
        ([f"{OTHER}/share/abcdefgh/?x=1#msg_1"], f"{OTHER}/rpc"),
        ([f"{OTHER}/base/share/abcdefgh"], f"{OTHER}/base/rpc"),
        ([f"{OTHER}/k/KEY/share/abcdefgh"], f"{OTHER}/k/KEY/rpc"),
        ([f"{OTHER}/share/abcdefgh", "--url", OWN], OWN),
    ],
)
def test_a_share_s_url_names_the_server_unless_another_is_given(arguments, url):
    result = CliRunner().invoke(probe, arguments)
    assert json.loads(result.stdout) == [url, None, "abcdefgh"]


def test_a_share_s_url_wins_over_the_environment():
    result = CliRunner().invoke(probe, [f"{OTHER}/share/abcdefgh"], env={"RPCSHARE_URL": OWN})
    assert json.loads(result.stdout)[0] == f"{OTHER}/rpc"


@pytest.mark.parametrize(
    "share", ["", "a b", "a/b", OWN, f"{OWN}/share/", "ftp://own.example/share/abcdefgh"]
)
def test_what_is_neither_an_id_nor_a_url_is_a_usage_error(share):
    assert "SHARE" in assert_one_line(run_command("pull", share), 2)


@pytest.mark.parametrize(
    ("arguments", "env", "token"),
    [
        # Given on the command line: sent wherever that says.
        ([OTHER, "--token", "typed"], {"RPCSHARE_TOKEN": "env", "RPCSHARE_URL": OWN}, "typed"),
        ([OTHER, "--data-dir", "kept"], {}, "kept"),
        # From the environment: for the server that it names, whichever form names it.
        ([OWN], {"RPCSHARE_TOKEN": "env", "RPCSHARE_URL": OWN}, "env"),
        ([OWN], {"RPCSHARE_DATA_DIR": "kept", "RPCSHARE_URL": OWN}, "kept"),
        (["abcdefgh", "--url", OWN], {"RPCSHARE_TOKEN": "env"}, "env"),
        (["abcdefgh"], {"RPCSHARE_TOKEN": "env", "RPCSHARE_DATA_DIR": "kept"}, "env"),
        ([OTHER], {"RPCSHARE_TOKEN": "env", "RPCSHARE_URL": OWN}, None),
        ([OTHER], {"RPCSHARE_TOKEN": "env"}, None),
        ([OTHER], {"RPCSHARE_DATA_DIR": "kept", "RPCSHARE_URL": OWN}, None),
        (["http://own.example"], {"RPCSHARE_TOKEN": "env", "RPCSHARE_URL": OWN}, None),
        # For a server on this machine, whatever its port.
        (["http://127.0.0.1:1"], {"RPCSHARE_TOKEN": "env", "RPCSHARE_URL": OWN}, "env"),
        (["http://[::1]:1"], {"RPCSHARE_TOKEN": "env"}, "env"),
        (["http://localhost:1"], {"RPCSHARE_DATA_DIR": "kept"}, "kept"),
        (["http://127.0.0.1:1"], {}, "default"),
        # In the working directory by chance: for a server on this machine alone.
        (["abcdefgh", "--url", OWN], {}, None),
        (["abcdefgh"], {"RPCSHARE_URL": OWN}, None),
        # Beside a key in the URL, another credential would only be refused.
        (["http://127.0.0.1:1/k/KEY"], {"RPCSHARE_TOKEN": "env"}, None),
    ],
)
def test_a_token_goes_to_the_server_that_it_is_meant_for_and_no_other(arguments, env, token):
    for name in ("kept", ".rpcshare"):
        Path(name).mkdir()
        Path(name, "admin-token").write_text(name.replace(".rpcshare", "default") + "\n")
    share, *options = arguments
    if "://" in share:
        share += "/share/abcdefgh"
    result = CliRunner().invoke(probe, [share, *options], env=env)
    assert json.loads(result.stdout)[1] == token


def test_a_token_that_cannot_be_one_is_not_repeated():
    line = assert_one_line(run_command("ls", "--token", "correct horse\r\nX: y"), 2)
    assert line.startswith("the token must be visible ASCII")
    assert "horse" not in line


def test_a_url_in_the_environment_that_cannot_be_a_server_s_is_a_usage_error():
    env = {"RPCSHARE_URL": "http://[", "RPCSHARE_TOKEN": "env"}
    result = CliRunner().invoke(main, ["pull", f"{OTHER}/share/abcdefgh"], env=env)
    assert assert_one_line(result, 2).startswith("the URL of a server begins with")


def test_a_data_dir_without_a_token_is_named(tmp_path):
    line = assert_one_line(run_command("ls", "--data-dir", "nonesuch"))
    assert line == "cannot read nonesuch/admin-token: No such file or directory"


def test_the_token_of_a_local_server_is_found_in_its_data_dir(server):
    assert run_command("ls", "--url", server.url, "--data-dir", server.data_dir).exit_code == 0


def test_without_a_token_a_refusal_says_that_none_was_sent(server):
    line = assert_one_line(run_command("ls", "--url", server.url), 4)
    assert line.startswith("Unauthorized")
    assert line.endswith("; no token was sent (see --token)")


def test_a_wrong_token_is_refused_and_not_repeated(server):
    line = assert_one_line(run_command("ls", "--url", server.url, "--token", "correct-horse"), 4)
    assert line.startswith("Unauthorized")
    assert "horse" not in line


@pytest.mark.parametrize("url", ["own.example", "ftp://own.example", "http://", "http://h:port/k/horse"])
def test_a_url_that_cannot_be_a_server_s_is_not_repeated(url):
    line = assert_one_line(run_command("ls", "--url", url), 2)
    assert line.startswith("the URL of a server begins with http:// or https:// and a host")


def test_a_server_that_is_not_there_gets_one_line():
    line = assert_one_line(run_command("ls", "--url", f"{NOBODY}/k/horse"))
    assert line.startswith("cannot connect to ws://127.0.0.1:1")
    assert "horse" not in line


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("http://h:1", "http://h:1/share/abcdefgh"),
        ("wss://h/rpc", "https://h/share/abcdefgh"),
        ("https://h/base/rpc/share", "https://h/base/share/abcdefgh"),
        ("https://user:horse@h/k/horse", "https://h/share/abcdefgh"),
    ],
)
def test_a_link_is_under_the_server_s_url_and_shows_no_key(url, link):
    assert Server(url, None).link("abcdefgh") == link


def test_a_server_shows_no_secret():
    assert "horse" not in repr(Server("https://h/k/horse", "horse"))


async def test_what_a_server_says_cannot_drive_the_terminal():
    class Hostile(RpcTarget):
        @rpc_method("listShares(options)")
        def list_shares(self, options: object) -> None:
            raise RpcError("For\x1b[2Jbidden\x9b", code="FORBIDDEN")

    async def session(websocket: ServerConnection) -> None:
        await Connection(WebSocketTransport(websocket), Hostile()).run()

    async with serve(session, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await asyncio.to_thread(run_command, "ls", "--url", f"http://127.0.0.1:{port}")
    assert assert_one_line(result) == "Forbidden"


async def test_a_429_says_when_to_try_again():
    def refuse(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(429, "")
        response.headers["Retry-After"] = "30"
        return response

    async def session(websocket: ServerConnection) -> None:
        """Is never called."""

    async with serve(session, "127.0.0.1", 0, process_request=refuse) as server:
        port = server.sockets[0].getsockname()[1]
        result = await asyncio.to_thread(run_command, "ls", "--url", f"http://127.0.0.1:{port}")
    assert assert_one_line(result).endswith("answered 429 to the handshake; try again in 30 s")
