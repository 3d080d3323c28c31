"""A backup holds all that a share is, in files that others can read, and brings it back the same."""

import json
import stat
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpcshare import jsontext
from rpcshare.auth.caller import ANONYMOUS
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.maintenance.doctor import examine
from rpcshare.maintenance.export_format import BackupError
from rpcshare.maintenance.exporting import export_shares
from rpcshare.maintenance.restoring import restore_shares
from rpcshare.storage import MemoryStore
from support.older_shares import SECRET, older_share, put_older
from support.share_stores import YieldingStore, contents

SESSION = {"type": "session", "data": {"id": "ses_12345678", "title": "A title", "x": [1.0, 1, None]}}
MESSAGE = {"type": "message", "data": {"id": "msg_1", "cost": 1.0, "n": 2**80, "text": "half \ud83d"}}
PART = {"type": "part", "data": {"id": "prt_1", "text": "line\nline\u2028é🎉\x00"}}
DIFFS = {"type": "session_diff", "data": [{"file": "a"}, {"file": "b"}, {"file": "a"}, None]}
MODEL = {"type": "model", "data": [{"id": "m", "providerID": "p"}, {"id": "m"}]}
ITEMS = [SESSION, MESSAGE, PART, DIFFS, MODEL]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "backup"


@pytest.fixture
async def share(service, alice):
    made = await service.create(alice, "ses_12345678", ITEMS)
    await service.sync(alice, made.id, None, [PART])
    return made


def place(folder, share_id="12345678"):
    return folder / "sessions" / share_id


def lines(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def sha256sum(folder, *arguments):
    return subprocess.run(["sha256sum", *arguments], cwd=folder, stdout=subprocess.PIPE, check=True).stdout


async def restored(folder, store=None, **options):
    """Restore into a store, a new one unless told otherwise, and return both."""
    store = store or MemoryStore()
    return store, await restore_shares(store, folder, **options)


# Writing it


async def test_each_kind_of_item_has_a_file_with_one_a_line(store, share, folder):
    exported = await export_shares(store, folder)
    assert (exported.shares, exported.failures) == (1, [])
    assert json.loads((place(folder) / "session.json").read_bytes()) == SESSION["data"]
    assert lines(place(folder) / "messages.jsonl") == [MESSAGE["data"]]
    assert lines(place(folder) / "parts.jsonl") == [PART["data"]]
    assert lines(place(folder) / "diffs.jsonl") == DIFFS["data"]
    assert lines(place(folder) / "models.jsonl") == MODEL["data"]


async def test_the_rest_is_in_a_file_of_its_own(store, share, folder):
    await export_shares(store, folder)
    assert json.loads((place(folder) / "share.json").read_bytes()) == {
        "v": 1,
        "id": "12345678",
        "sessionID": "ses_12345678",
        "owner": "alice",
        "session": {"v": 1, "owner": "alice"},
        "secretKind": "session",
        "secretHash": None,
        "visibility": "link",
        "passwordHash": None,
        "expiresAt": None,
        "createdAt": 1_700_000_000_000,
        "lastUpdated": 1_700_000_000_002,
        "syncCount": 2,
    }


async def test_no_secret_is_in_it(store, new_service, share, folder):
    made = await new_service(anonymous_create=True).create(ANONYMOUS, "ses_anonymous")
    await export_shares(store, folder)
    texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert not any(secret in text for text in texts for secret in (share.secret, made.secret))


async def test_only_the_owner_of_the_files_can_read_them(store, share, folder):
    await export_shares(store, folder)
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


async def test_the_checksums_are_those_of_the_usual_program(store, share, folder):
    await export_shares(store, folder)
    assert len(sha256sum(folder, "--check", "--strict", "SHA256SUMS").splitlines()) == 6


async def test_shares_can_be_chosen(store, service, alice, share, folder):
    await service.create(alice, "ses_another_00000000")
    exported = await export_shares(store, folder, ["00000000", "unknown1"])
    assert [path.name for path in (folder / "sessions").iterdir()] == ["00000000"]
    assert exported.failures == [("unknown1", "there is no such share")]


async def test_deleted_shares_are_not_in_it(store, service, alice, share, folder):
    await service.delete(alice, share.id, None)
    assert (await export_shares(store, folder)).shares == 0
    assert (folder / "SHA256SUMS").read_bytes() == b""


async def test_a_share_that_cannot_be_read_is_left_out_and_told_of(store, service, alice, share, folder):
    await service.create(alice, "ses_another_00000000")
    await store.put("share/12345678/head", b"?")
    exported = await export_shares(store, folder)
    assert exported.shares == 1
    assert exported.failures[0][0] == "12345678"
    assert len((await restored(folder))[0]._objects) == 3


async def test_a_folder_with_something_in_it_is_left_alone(store, share, folder):
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(BackupError, match="not empty"):
        await export_shares(store, folder)
    assert [path.name for path in folder.iterdir()] == ["mine"]


async def test_exporting_changes_nothing_in_the_store(store, service, share, folder):
    await put_older(store, "older678")
    before = contents(store)
    await export_shares(store, folder)
    assert contents(store) == before


async def test_a_share_that_grows_meanwhile_is_as_it_was_at_one_moment(store, service, alice, share, folder):
    class Growing(YieldingStore):
        async def call(self, name, arguments, run):
            await service.sync(alice, share.id, None, [MESSAGE])
            return await run()

    await export_shares(Growing(store), folder)
    _, outcome = await restored(folder)
    assert outcome.restored == 1


# Bringing it back


async def test_a_share_comes_back_the_same(store, service, new_service, bob, share, folder):
    before = await service.agent_session(bob, share.id)
    await export_shares(store, folder)
    target, outcome = await restored(folder)
    assert (outcome.restored, outcome.unchanged, outcome.refused) == (1, 0, [])
    assert await new_service(target).agent_session(bob, share.id) == before


async def test_its_owner_and_its_secret_work_as_before(store, new_service, alice, bob, share, folder):
    await export_shares(store, folder)
    target, _ = await restored(folder)
    service = new_service(target)
    assert await service.create(alice, "ses_12345678") == share
    assert await service.sync(bob, share.id, share.secret, []) == 3
    assert await service.sync(alice, share.id, None, []) == 4
    assert (await service.list_own(alice)).count == 1
    # Bob's own share of the session must not have the secret that Alice knows.
    assert (await service.create(bob, "ses_12345678")).secret != share.secret


async def test_a_random_secret_works_as_before(store, new_service, alice, folder):
    made = await new_service(anonymous_create=True).create(ANONYMOUS, "ses_12345678", ITEMS)
    await export_shares(store, folder)
    target, _ = await restored(folder)
    service = new_service(target)
    assert await service.sync(alice, made.id, made.secret, []) == 2
    with pytest.raises(ShareError) as caught:
        await service.sync(alice, made.id, "another", [])
    assert caught.value.code is ErrorCode.INVALID_SECRET


async def test_a_share_with_nothing_in_it_comes_back(store, service, new_service, alice, folder):
    made = await service.create(alice, "ses_12345678")
    before = await service.agent_session(alice, made.id)
    await export_shares(store, folder)
    target, _ = await restored(folder)
    assert await new_service(target).agent_session(alice, made.id) == before


async def test_a_share_in_the_older_layout_comes_back_as_one_with_a_log(store, new_service, bob, folder):
    await put_older(store)
    before = await new_service().agent_session(bob, "12345678")
    await export_shares(store, folder)
    target, _ = await restored(folder)
    assert "share/12345678/head" in contents(target)
    service = new_service(target)
    assert await service.agent_session(bob, "12345678") == before
    await service.sync(bob, "12345678", SECRET, [])


async def test_what_is_restored_is_well(store, share, folder):
    await put_older(store, "older678")
    await export_shares(store, folder)
    target, _ = await restored(folder)
    report = await examine(target, patience=0.0)
    assert (report.shares, report.findings, report.superfluous) == (2, [], 0)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


@given(value=values, text=st.text(st.characters(), min_size=1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_value_comes_back_exactly(new_service, alice, tmp_path_factory, value, text):
    store, folder = MemoryStore(), tmp_path_factory.mktemp("backup")
    data = {"id": text, text: value, "value": value}
    items = [
        *({"type": kind, "data": data} for kind in ("session", "message", "part")),
        *({"type": kind, "data": [data]} for kind in ("session_diff", "model")),
    ]
    service = new_service(store)
    made = await service.create(alice, "ses_12345678", items)
    await export_shares(store, folder)
    target, _ = await restored(folder)
    assert await new_service(target).agent_session(alice, made.id) == await service.agent_session(
        alice, made.id
    )
    assert (await restore_shares(store, folder)).unchanged == 1


# What is there already


async def test_restoring_again_changes_nothing(store, share, folder):
    await export_shares(store, folder)
    target, _ = await restored(folder)
    before = contents(target)
    _, outcome = await restored(folder, target)
    assert (outcome.restored, outcome.unchanged, outcome.refused) == (0, 1, [])
    assert contents(target) == before


async def test_a_share_that_differs_is_left_as_it_is(store, service, new_service, alice, share, folder):
    await export_shares(store, folder)
    await service.sync(alice, share.id, None, [MESSAGE])
    await service.close()
    before = contents(store)
    _, outcome = await restored(folder, store)
    assert [share_id for share_id, _ in outcome.refused] == [share.id]
    assert contents(store) == before


async def test_a_share_that_differs_is_replaced_if_told_so(store, new_service, alice, bob, share, folder):
    before = await new_service().agent_session(bob, share.id)
    await export_shares(store, folder)
    running = new_service(shared_store=True)
    await running.sync(alice, share.id, None, [{"type": "part", "data": {"id": "prt_2"}}])
    await running.agent_session(bob, share.id)
    _, outcome = await restored(folder, store, overwrite=True)
    assert outcome.restored == 1
    assert await new_service().agent_session(bob, share.id) == before
    # A server that had it open has learnt of it, and goes on with what is there now.
    assert await running.agent_session(bob, share.id) == before
    assert await running.sync(alice, share.id, None, []) == 3
    await running.close()
    report = await examine(store, patience=0.0)
    assert (report.findings, report.superfluous) == ([], 4)  # the tombstones of the former one


async def test_a_share_that_has_been_deleted_comes_back(store, service, new_service, alice, share, folder):
    before = await service.agent_session(alice, share.id)
    await export_shares(store, folder)
    await service.delete(alice, share.id, None)
    _, outcome = await restored(folder, store)
    assert outcome.restored == 1
    assert await new_service().agent_session(alice, share.id) == before


@pytest.mark.parametrize("damaged", ["head", "log"])
async def test_a_share_that_cannot_be_read_is_replaced_if_told_so(
    store, service, new_service, alice, share, folder, damaged
):
    before = await service.agent_session(alice, share.id)
    await export_shares(store, folder)
    await service.close()
    for key in contents(store):
        if damaged in key.split("/"):
            await store.put(key, b"?")
    _, outcome = await restored(folder, store)
    assert len(outcome.refused) == 1
    _, outcome = await restored(folder, store, overwrite=True)
    assert outcome.restored == 1
    assert await new_service().agent_session(alice, share.id) == before


async def test_a_share_in_the_older_layout_is_replaced_if_told_so(store, new_service, bob, folder):
    await put_older(store)
    before = await new_service().agent_session(bob, "12345678")
    await export_shares(store, folder)
    await put_older(store, share=older_share(parts=[]))
    assert len((await restored(folder, store))[1].refused) == 1
    assert (await restored(folder, store, overwrite=True))[1].restored == 1
    assert await new_service().agent_session(bob, "12345678") == before


async def test_a_share_whose_secret_is_anothers_here_is_refused(store, new_service, bob, share, folder):
    await export_shares(store, folder)
    target = MemoryStore()
    service = new_service(target)
    made = await service.create(bob, "ses_12345678")
    await service.delete(bob, made.id, None)
    _, outcome = await restored(folder, target)
    assert outcome.refused == [
        ("12345678", "session ses_12345678 was first shared by another here"),
    ]


# Backups that are not what they were


@pytest.mark.parametrize("file", ["share.json", "session.json", "parts.jsonl", "diffs.jsonl"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
async def test_a_file_that_is_not_what_it_was_is_named_and_nothing_restored(
    store, service, alice, share, folder, file, damage
):
    await service.create(alice, "ses_another_00000000")
    await export_shares(store, folder)
    path = place(folder) / file
    if damage == "changed":
        path.write_bytes(path.read_bytes() + b"\n")
    else:
        path.unlink()
    target = MemoryStore()
    with pytest.raises(BackupError, match=str(path)):
        await restore_shares(target, folder)
    assert contents(target) == {}


async def test_a_file_too_many_is_named(store, share, folder):
    await export_shares(store, folder)
    (place(folder) / "notes.jsonl").touch()
    with pytest.raises(BackupError, match=r"notes\.jsonl has no checksum"):
        await restored(folder)


async def test_without_checksums_it_is_no_backup(store, share, folder):
    await export_shares(store, folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(BackupError, match="no complete backup"):
        await restored(folder)


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        f"{'0' * 64}  /etc/passwd",
        f"{'0' * 64}  sessions/../share.json",
        f"{'0' * 64}  sessions/a b/share.json",
    ],
)
async def test_checksums_of_other_files_are_refused(store, share, folder, line):
    await export_shares(store, folder)
    (folder / "SHA256SUMS").write_text(line + "\n")
    with pytest.raises(BackupError, match="line 1"):
        await restored(folder)


def resummed(folder, file, body):
    """Replace a file, and its checksum with it."""
    (place(folder) / file).write_bytes(body)
    paths = (str(path.relative_to(folder)) for path in place(folder).iterdir())
    (folder / "SHA256SUMS").write_bytes(sha256sum(folder, *sorted(paths)))


@pytest.mark.parametrize(
    ("file", "body", "where"),
    [
        ("messages.jsonl", b'{"id":"a"}\n{"role":1}\n', "messages.jsonl, line 2"),
        ("parts.jsonl", b"{\n", "parts.jsonl, line 1"),
        ("session.json", b"[]", "session.json, line 1"),
        ("share.json", b"{}", "share.json is not what"),
    ],
)
async def test_what_no_share_can_hold_is_named(store, share, folder, file, body, where):
    await export_shares(store, folder)
    resummed(folder, file, body)
    with pytest.raises(BackupError, match=where):
        await restored(folder)


async def test_a_record_of_another_share_or_version_is_refused(store, share, folder):
    await export_shares(store, folder)
    record = json.loads((place(folder) / "share.json").read_bytes())
    for change in ({"id": "another1"}, {"v": 2}, {"sessionID": "../.."}):
        resummed(folder, "share.json", jsontext.encode(record | change))
        with pytest.raises(BackupError, match=r"share\.json"):
            await restored(folder)


async def test_lines_that_others_have_written_may_look_different(store, new_service, alice, share, folder):
    await export_shares(store, folder)
    resummed(folder, "parts.jsonl", b'{ "id" : "prt_9" , "text":"\\u00e9" }\r\n')
    target, outcome = await restored(folder)
    assert outcome.restored == 1
    assert json.loads(await new_service(target).agent_session(alice, share.id))["parts"] == [
        {"id": "prt_9", "text": "é"}
    ]
