"""Who may do what: every kind of caller, every operation, every entry point (:mod:`access_matrix.rights`)."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from starlette.routing import Route, WebSocketRoute

from access_matrix.operations import CALLS, REQUESTS
from access_matrix.rights import CALLERS
from access_matrix.runs import ENTRIES, MatrixRun
from rpcshare.agents.agent_services import AgentServices
from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.audit import AuditLog
from rpcshare.auth.authenticator import Authenticator
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings
from rpcshare.rpc import RpcTarget
from rpcshare.sandbox.bubblewrap import BubblewrapDriver
from rpcshare.server import (
    agents_rpc,
    keys_rpc,
    share_rpc,
    subscriptions,
    users_rpc,
    vault_rpc,
    workspaces_rpc,
)
from rpcshare.server.app import create_app
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import MemoryStore
from rpcshare.workspaces.caller_workspaces import WorkspaceServices
from rpcshare.workspaces.git_clone import GitClone
from rpcshare.workspaces.resources import Bounds
from rpcshare.workspaces.sandboxing import EgressSettings, SandboxedPrograms
from support.scripted_agents import ScriptedNode

pytestmark = pytest.mark.slow  # real servers, several of them at a time


# Batches are answered by the code that answers a session over a WebSocket.
ENTRIES_BY_COST = [
    pytest.param(each, marks=pytest.mark.rare) if each == "batch" else each for each in ENTRIES
]


@pytest.mark.parametrize("entry", ENTRIES_BY_COST)
@pytest.mark.parametrize("caller", CALLERS)
def test_each_caller_is_answered_as_the_table_says(run: MatrixRun, caller: str, entry: str) -> None:
    answers = run.answers(entry, caller)
    assert answers
    expected = {operation: cell for operation, (cell, _) in answers.items()}
    assert {operation: answered for operation, (_, answered) in answers.items()} == expected


def test_each_call_has_a_row() -> None:
    modules = (share_rpc, keys_rpc, subscriptions, users_rpc, vault_rpc, workspaces_rpc, agents_rpc)
    targets = {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, RpcTarget) and each is not RpcTarget
    }
    members = {f"{target.__name__}.{name}" for target in targets for name in target.rpc_members}
    assert set(CALLS) == members


def test_each_target_that_the_server_has_is_looked_at() -> None:
    """No class of targets is anywhere else, whose calls would have no row."""
    server = {
        each.__name__ for each in _subclasses(RpcTarget) if each.__module__.startswith("rpcshare.server")
    }
    assert server == {name.partition(".")[0] for name in CALLS}


# They answer everybody the same sentence.
NOT_ASKED = {"GET /rpc", "GET /rpc/share"}


async def test_each_method_of_each_path_has_a_row() -> None:
    service = ShareService(
        MemoryStore(), LocalBroadcaster(), Credentials(UUID(int=7), "http://share.example")
    )

    async def open_vault() -> Any:
        raise AssertionError("nothing is asked of it")

    app, _ = create_app(
        Settings(),
        service,
        Authenticator([]),
        "http://share.example",
        keys=ApiKeys(MemoryStore()),
        open_vault=open_vault,
        workspaces=_services(),
        agents=AgentServices(open_vault, ScriptedNode(), service, str, public_url="http://share.example"),
    )
    await service.close()
    there = set()
    for route in app.routes:
        if isinstance(route, WebSocketRoute):
            there.add(f"WEBSOCKET {route.path}")
        else:
            assert isinstance(route, Route)
            # HEAD is asked beside each GET.
            there |= {f"{method} {route.path}" for method in (route.methods or {"GET"}) if method != "HEAD"}
    assert set(REQUESTS) == there - NOT_ASKED


def _services() -> WorkspaceServices:
    """Return the workspaces of a server that runs agents; nothing is asked of them."""

    async def opened() -> Any:
        raise AssertionError("nothing is asked of it")

    driver = BubblewrapDriver()
    programs = SandboxedPrograms(opened, driver, EgressSettings(), AuditLog())
    folder = Path("snapshots")
    return WorkspaceServices(
        opened, None, programs, GitClone(driver), bounds=Bounds(), snapshots=folder, searching=None
    )


def _subclasses(target: type[RpcTarget]) -> set[type[RpcTarget]]:
    found = set(target.__subclasses__())
    return found.union(*(_subclasses(each) for each in found))
