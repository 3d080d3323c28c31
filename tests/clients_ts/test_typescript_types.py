"""clients/types says what the server's definitions say: its methods, parameters, members, codes and kinds."""

import functools
import json
import shutil
from typing import Any
from uuid import uuid4

import msgspec
import pytest

import rpcshare
from rpcshare.errors import ErrorCode
from rpcshare.rpc import RpcTarget
from rpcshare.rpc.members import Method
from rpcshare.server.agents_rpc import AgentRpc, AgentsRpc, ApprovalRpc
from rpcshare.server.keys_rpc import KeyOptions, KeysRpc
from rpcshare.server.share_rpc import ListOptions, Share, ShareRpc, ViewTokenOptions
from rpcshare.server.subscriptions import CallbackSubscription
from rpcshare.server.users_rpc import UsersRpc
from rpcshare.server.vault_rpc import VaultRpc
from rpcshare.server.workspaces_rpc import FilesRpc, WorkspaceRpc, WorkspacesRpc
from rpcshare.shares import events
from rpcshare.shares.access_settings import AccessOptions, AccessSettings, ViewToken
from rpcshare.shares.objects import Visibility
from rpcshare.shares.page import Page
from rpcshare.shares.state import SessionIndex
from rpcshare.shares.syncdata import Kind
from support.npm_packages import CLIENTS, needs_packages, run_in
from support.running_server import RunningServer

pytestmark = [pytest.mark.slow, pytest.mark.node, needs_packages]


@functools.cache
def declared() -> dict[str, Any]:
    node = shutil.which("node")
    assert node is not None
    description: dict[str, Any] = json.loads(run_in(CLIENTS / "types", node, "describe.mjs"))
    return description


def signature(method: Method) -> str:
    names = [name + "?" * (i >= method.required) for i, name in enumerate(method.parameters)]
    return f"{method.name}({', '.join(names)})"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("ShareRpc", ShareRpc),
        ("Share", Share),
        ("Subscription", CallbackSubscription),
        ("ApiKeys", KeysRpc),
        ("Users", UsersRpc),
        ("Vault", VaultRpc),
        ("Workspaces", WorkspacesRpc),
        ("Agents", AgentsRpc),
        ("Agent", AgentRpc),
        ("Approval", ApprovalRpc),
        ("Workspace", WorkspaceRpc),
        ("WorkspaceFiles", FilesRpc),
    ],
)
def test_a_target_has_the_methods_that_its_interface_declares(name: str, target: type[RpcTarget]) -> None:
    exported = {signature(member) for member in target.rpc_members.values() if isinstance(member, Method)}
    assert set(declared()["interfaces"][name]) == exported


@pytest.mark.parametrize(
    ("name", "struct"),
    [
        ("SessionIndex", SessionIndex),
        ("SessionPage", Page),
        ("ListOptions", ListOptions),
        ("KeyOptions", KeyOptions),
        ("AccessSettings", AccessSettings),
        ("ViewToken", ViewToken),
        ("ViewTokenOptions", ViewTokenOptions),
    ],
)
def test_a_struct_has_the_members_that_its_interface_declares(
    name: str, struct: type[msgspec.Struct]
) -> None:
    fields = {field.encode_name + "?" * (not field.required) for field in msgspec.structs.fields(struct)}
    assert set(declared()["interfaces"][name]) == fields


async def test_an_answer_has_the_members_that_its_interface_declares(server: RunningServer) -> None:
    interfaces = declared()["interfaces"]
    async with rpcshare.connect(server.url, token=server.token) as api:
        share = await api.createShare(f"ses_{uuid4().hex}")
        session = await api.getShare(share["id"])
        key = await api.keys().create("types")
        answers = {
            "ShareCredentials": share,
            "SyncResult": await api.syncShare(share["id"], share["secret"], []),
            "AgentSession": session,
            "ShareMetadata": session["metadata"],
            "Identity": await api.whoami(),
            "NewApiKey": key,
            "ApiKey": await api.keys().revoke(key["id"]),
        }
    assert {name: set(answer) for name, answer in answers.items()} == {
        name: set(interfaces[name]) for name in answers
    }


def test_options_that_are_declared_are_the_servers() -> None:
    options = {name.rstrip("?"): None for name in declared()["interfaces"]["AccessOptions"]}
    assert AccessOptions.parse({**options, "visibility": "link"}).are_given
    assert len(options) == len(msgspec.structs.fields(AccessOptions))


def test_codes_kinds_and_events_are_the_servers() -> None:
    assert declared()["unions"]["Visibility"] == list(Visibility)
    assert declared()["unions"]["ErrorCode"] == list(ErrorCode)
    assert declared()["unions"]["SyncData"] == list(Kind)
    assert declared()["events"] == [event.type for event in (events.Snapshot, events.Sync, events.Deleted)]


def test_an_event_has_the_members_that_its_interface_declares() -> None:
    interfaces = declared()["interfaces"]
    assert set(interfaces["SnapshotEvent"]) == set(events.Snapshot("9eiXoPTK", 1, ()).value)
    assert set(interfaces["SyncEvent"]) == set(events.Sync("9eiXoPTK", 1, ()).value)
    assert set(interfaces["DeletedEvent"]) == set(events.Deleted("9eiXoPTK").value)
