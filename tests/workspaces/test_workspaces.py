"""Rows and directories, and what callers may do with them, in both databases."""

import os
import tarfile
from pathlib import Path

import pytest
import zstandard
from structlog.testing import capture_logs

from rpcshare.auth.audit import AuditLog
from rpcshare.auth.caller import ANONYMOUS, Caller, CallerUser, Role, Scope
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.auth.subject_sources import user_source
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.sandbox.bubblewrap import BubblewrapDriver
from rpcshare.storage.encryption_keys import EncryptionKey, KeyRing
from rpcshare.vault.caller_vault import CallerVault
from rpcshare.vault.vault import Vault
from rpcshare.workspaces.caller_workspaces import CallerWorkspaces, WorkspaceServices
from rpcshare.workspaces.git_clone import GitClone
from rpcshare.workspaces.git_source import find_key, parse_git_url
from rpcshare.workspaces.resources import Bounds
from rpcshare.workspaces.sandboxing import EgressSettings, SandboxedPrograms
from rpcshare.workspaces.workspace import WorkspaceState
from rpcshare.workspaces.workspaces import Reach, Workspaces

NOTHING = "wsp_" + "0" * 24


def user(name: str, organization: str = "acme", role: Role = Role.MEMBER) -> Caller:
    who = CallerUser(f"usr_{name}", organization, role)
    return Caller(subject=who.id, scopes=role.scopes, user=who, source=user_source(organization))


ALICE, BOB, EVE = user("alice"), user("bob"), user("eve", "other")
ADMIN, ROOT = user("ada", role=Role.ADMIN), Caller("admin", frozenset({Scope.ADMIN}), source="admin")
TOKEN = Caller(subject="ci", scopes=frozenset({Scope.CREATE}), source="key")


class World:
    """Workspaces of one server."""

    def __init__(self, records, folder: Path, **options) -> None:
        self.folder = folder
        self.clock = 1000.0
        self.workspaces = Workspaces(records, folder / "ws", clock=lambda: self.clock, **options)
        self.audit = AuditLog()
        driver = BubblewrapDriver()
        self.programs = SandboxedPrograms(self.opened, driver, EgressSettings(), self.audit)
        self.services = WorkspaceServices(
            self.opened,
            None,
            self.programs,
            GitClone(driver),
            bounds=Bounds(),
            snapshots=folder / "snapshots",
            searching=None,
        )

    async def opened(self) -> Workspaces:
        return self.workspaces

    def of(self, caller: Caller) -> CallerWorkspaces:
        return CallerWorkspaces(self.services, caller, self.audit)


@pytest.fixture
def world(records, tmp_path):
    return World(records, tmp_path)


async def refused(work, code):
    with pytest.raises(ShareError) as caught:
        await work
    assert caught.value.code is code
    return caught.value.message


async def test_a_workspace_is_made_listed_changed_and_removed(world):
    made = await world.of(ALICE).create({"name": "site", "resources": {"memory": "512MiB"}})
    folder = world.folder / "ws" / made.id
    assert sorted(path.name for path in folder.iterdir()) == ["files", "home"]
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "files" / "a").write_bytes(bytes(8192))
    info = await world.of(ALICE).info(made.id)
    assert (info.name, info.state, info.resources.memory) == ("site", WorkspaceState.READY, 2**29)
    assert info.disk_used >= 8192
    changed = await world.of(ALICE).update(made.id, {"name": "page", "hosts": ["a.example"]})
    assert (changed.name, changed.hosts, changed.resources.memory) == ("page", ("a.example",), 2**29)
    assert [each.name for each in await world.of(ALICE).list()] == ["page"]
    assert await world.of(ALICE).remove(made.id) is None
    assert not folder.exists()
    await refused(world.of(ALICE).get(made.id), ErrorCode.WORKSPACE_NOT_FOUND)


async def test_a_name_is_of_one_workspace_of_an_owner(world):
    made = await world.of(ALICE).create({"name": "site"})
    assert "name" in await refused(world.of(ALICE).create({"name": "site"}), ErrorCode.INVALID_ARGUMENT)
    await world.of(BOB).create({"name": "site"})
    await world.of(ALICE).create({"name": "other"})
    assert "name" in await refused(
        world.of(ALICE).update(made.id, {"name": "other"}), ErrorCode.INVALID_ARGUMENT
    )


async def test_an_owner_has_so_many_and_no_more(records, tmp_path):
    world = World(records, tmp_path, max_of_owner=2)
    for name in ("a", "b"):
        await world.of(ALICE).create({"name": name})
    assert "at most 2" in await refused(world.of(ALICE).create({"name": "c"}), ErrorCode.INVALID_ARGUMENT)
    await world.of(BOB).create({"name": "c"})


async def test_who_may_do_what(world):
    made = await world.of(ALICE).create({"name": "site"})
    for caller in (ADMIN, ROOT):
        assert (await world.of(caller).get(made.id)).owner == ALICE.owner
        assert made.id in [each.id for each in await world.of(caller).list()]
        await world.of(caller).files(made.id).list()
        await world.of(caller).update(made.id, {"name": f"by-{caller.subject}"})
    for caller in (BOB, EVE, TOKEN, user("mallory", "other", Role.ADMIN)):
        assert await world.of(caller).list() == []
        other = world.of(caller)
        files = other.files(made.id)
        for work in (
            other.get(made.id), other.info(made.id), other.update(made.id, {"name": "x"}),
            other.remove(made.id),
            files.list(), files.find("a"), files.read("a"), files.search("a"),
        ):  # fmt: skip
            await refused(work, ErrorCode.WORKSPACE_NOT_FOUND)
    over = Caller("ci", TOKEN.scopes, source="key", standing=CredentialValidity(expires_at=1.0))
    for caller, code in (
        (ANONYMOUS, ErrorCode.UNAUTHORIZED),
        (over, ErrorCode.UNAUTHORIZED),
        (user("v", role=Role.VIEWER), ErrorCode.FORBIDDEN),
        (Caller("r", frozenset({Scope.READ}), source="key"), ErrorCode.FORBIDDEN),
    ):
        await refused(world.of(caller).list(), code)
        await refused(world.of(caller).create({"name": "x"}), code)
        await refused(world.of(caller).get(made.id), code)
    await world.of(ADMIN).remove(made.id)


async def test_ids_that_are_none_are_as_good_as_unknown(world):
    for workspace_id in ("", "wsp_0", "../x", NOTHING, "%", "wsp_" + "g" * 24):
        await refused(world.of(ROOT).get(workspace_id), ErrorCode.WORKSPACE_NOT_FOUND)


async def test_only_one_s_own_workspaces_are_mounted(world):
    data = await world.of(ALICE).create({"name": "data"})
    mount = {"name": "data", "workspace": data.id}
    site = await world.of(ALICE).create({"name": "site", "mounts": [mount]})
    assert site.described()["mounts"] == [{"name": "data", "workspace": data.id, "readonly": True}]
    for caller in (BOB, EVE, ADMIN):
        await refused(
            world.of(caller).create({"name": "x", "mounts": [mount]}), ErrorCode.WORKSPACE_NOT_FOUND
        )
    own = {"mounts": [{"name": "self", "workspace": site.id}]}
    await refused(world.of(ALICE).update(site.id, own), ErrorCode.INVALID_ARGUMENT)
    assert "site" in await refused(world.of(ALICE).remove(data.id), ErrorCode.INVALID_ARGUMENT)
    await world.of(ALICE).update(site.id, {"mounts": []})
    await world.of(ALICE).remove(data.id)


async def test_what_cannot_be_cloned_leaves_nothing(world):
    given = {"name": "site", "source": {"git": "git@host.example:a.git"}}
    assert "host keys" in await refused(world.of(ALICE).create(given), ErrorCode.INVALID_ARGUMENT)
    assert await world.of(ALICE).list() == []
    assert list((world.folder / "ws").iterdir()) == []
    await refused(
        world.of(ALICE).create({**given, "source": {"git": "https://a.example/b", "key": "k"}}),
        ErrorCode.INVALID_ARGUMENT,
    )


async def test_a_snapshot_keeps_the_files(world):
    made = await world.of(ALICE).create({"name": "site"})
    files = world.folder / "ws" / made.id / "files"
    (files / "deep").mkdir()
    (files / "deep" / "a").write_text("kept")
    (files / "link").symlink_to("/etc/passwd")
    os.mkfifo(files / "pipe")
    name = await world.of(ALICE).remove(made.id, keep_snapshot=True)
    assert name == f"{made.id}.tar.zst"
    archive = world.folder / "snapshots" / name
    assert archive.stat().st_mode & 0o777 == 0o600
    with zstandard.open(archive, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        members = {member.name: member for member in tar}
    assert set(members) == {".", "./deep", "./deep/a", "./link"}
    assert members["./link"].issym()
    assert not files.exists()


async def test_a_snapshot_that_fails_leaves_the_workspace(world):
    made = await world.of(ALICE).create({"name": "site"})
    (world.folder / "snapshots").write_text("in the way")
    await refused(world.of(ALICE).remove(made.id, keep_snapshot=True), ErrorCode.STORAGE_UNAVAILABLE)
    assert (await world.of(ALICE).get(made.id)).state is WorkspaceState.READY


async def test_a_tree_of_any_depth_is_removed(world):
    made = await world.of(ALICE).create({"name": "site"})
    files = world.folder / "ws" / made.id / "files"
    here = os.open(files, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    await world.of(ALICE).remove(made.id)
    assert not files.exists()


async def test_what_a_killed_server_left_half_made_is_removed_later(world):
    new = (await world.of(ALICE).create({"name": "whole"})).id
    half = await world.workspaces.add(ALICE.owner or "", _new("half"))
    await refused(world.of(ALICE).get(half.id), ErrorCode.WORKSPACE_NOT_FOUND)
    assert await world.workspaces.discard_abandoned() == 0
    world.clock += 4000
    assert await world.workspaces.discard_abandoned() == 1
    assert [each.id for each in await world.workspaces.list(Reach((), is_all=True))] == [new]
    assert not (world.folder / "ws" / half.id).exists()


async def test_the_audit_log_tells_of_each_change(world):
    with capture_logs() as lines:
        made = await world.of(TOKEN).create({"name": "site"})
        await world.of(TOKEN).update(made.id, {"name": "page"})
        await refused(world.of(ANONYMOUS).list(), ErrorCode.UNAUTHORIZED)
        await world.of(TOKEN).remove(made.id)
    told = [(line["action"], line["outcome"], line.get("workspace")) for line in lines]
    assert told == [
        ("workspace.create", "ok", made.id),
        ("workspace.update", "ok", made.id),
        ("workspaces.list", "refused", None),
        ("workspace.remove", "ok", made.id),
    ]


async def test_owners_of_any_name_are_kept(world):
    odd = Caller("Zo\u00eb \x1f%00", frozenset({Scope.CREATE}), source="jwt:https://id.example")
    made = await world.of(odd).create({"name": "site"})
    assert [each.id for each in await world.of(odd).list()] == [made.id]
    assert (await world.of(odd).get(made.id)).owner == odd.owner


# Keys of the vault


@pytest.fixture
def vault(records):
    return Vault(records, KeyRing([EncryptionKey(bytes(32), "key")]))


async def keep(vault, caller, name, value, **fields):
    async def opened():
        return vault

    entry = {"service": "git", "name": name, "value": value, **fields}
    return await CallerVault(opened, caller, AuditLog()).store(entry)


async def key_for(vault, caller, url, wanted=None, name="site"):
    found = await find_key(vault, caller, parse_git_url(url), NOTHING, name, wanted)
    return None if found is None else found.value


async def test_a_key_goes_to_the_host_that_it_is_for_and_to_no_other(vault):
    await keep(vault, ADMIN, "github.com", "of all", owner="organization")
    await keep(vault, ADMIN, "deploy", "of another", owner="organization", scopes=["git.acme.example/team"])
    assert await key_for(vault, ALICE, "https://github.com/a/b") == "of all"
    assert await key_for(vault, ALICE, "https://git.acme.example/team/x") == "of another"
    for url in (
        "https://evil.example/github.com",
        "https://github.com.evil.example/a",
        "https://evilgithub.com/a",
        "https://git.acme.example/teams/x",
        "https://git.acme.example/other",
    ):
        assert await key_for(vault, ALICE, url) is None
        with pytest.raises(ShareError, match="no such key"):
            await key_for(vault, ALICE, url, "github.com")
    assert await key_for(vault, EVE, "https://github.com/a/b") is None


async def test_the_key_that_fits_most_is_taken_and_one_s_own_first(vault):
    await keep(vault, ADMIN, "github.com/acme", "team", owner="organization")
    await keep(vault, ALICE, "github.com", "own")
    assert await key_for(vault, ALICE, "https://github.com/acme/x") == "team"
    assert await key_for(vault, ALICE, "https://github.com/else/x") == "own"
    await keep(vault, ALICE, "github.com/acme", "own team")
    assert await key_for(vault, ALICE, "https://github.com/acme/x") == "own team"
    assert await key_for(vault, ALICE, "https://github.com/acme/x", "github.com") == "own"


async def test_grants_name_a_workspace_and_its_name_counts_in_one_s_own_keys_alone(vault):
    await keep(vault, ADMIN, "a.example", "all", owner="organization", grants=["workspace:site"])
    assert await key_for(vault, ALICE, "https://a.example/x") is None
    await keep(vault, ALICE, "a.example", "own", grants=["workspace:site"])
    assert await key_for(vault, ALICE, "https://a.example/x") == "own"
    assert await key_for(vault, ALICE, "https://a.example/x", name="other") is None
    await keep(vault, ADMIN, "b.example", "by id", owner="organization", grants=[f"workspace:{NOTHING}"])
    assert await key_for(vault, ALICE, "https://b.example/x") == "by id"


def _new(name):
    from rpcshare.workspaces.workspace import parse_new_workspace

    return parse_new_workspace({"name": name}, Bounds())
