"""Somebody puts older objects back into the store: what was ended stays so, and it is told."""

import pytest

from rpcshare.auth.api_key_verifier import ApiKeyVerifier
from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.ended_tokens import EndedTokens, TokenClaims
from rpcshare.auth.token_revocations import TokenRevocations
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.maintenance.doctor import examine
from rpcshare.maintenance.findings import Problem
from rpcshare.shares import objects
from rpcshare.shares.rollback import HighWaterMarks, MarksError, RollbackCheckedStore
from support.share_stores import contents

SESSION = "ses_12345678"
DATA = [{"type": "part", "data": {"id": "p", "text": "confidential"}}]


@pytest.fixture
def marks_path(tmp_path):
    return tmp_path / "marks.sqlite3"


@pytest.fixture
def checked(store, marks_path):
    """The store as a server with one data directory has it, which may be started again."""
    opened = []

    def start():
        marks = HighWaterMarks.open(marks_path)
        opened.append(marks)
        return RollbackCheckedStore(store, marks)

    yield start
    for marks in opened:
        marks.close()


async def put_back(store, old, prefix=""):
    """Make the store what it was, where keys begin with ``prefix``, without a trace."""
    await store.delete([key for key in contents(store) if key.startswith(prefix) and key not in old])
    for key, body in old.items():
        if key.startswith(prefix) and contents(store).get(key) != body:
            await store.put(key, body)


async def refusal(call):
    with pytest.raises(ShareError) as caught:
        await call
    return caught.value.code


async def make_private(service, caller, share_id):
    await service.update(caller, share_id, None, {"visibility": "private"})


async def delete(service, caller, share_id):
    await service.delete(caller, share_id, None)


async def set_password(service, caller, share_id):
    await service.update(caller, share_id, None, {"password": "long enough"})


ENDINGS = pytest.mark.parametrize(
    ("end", "answer"),
    [
        (make_private, ErrorCode.UNAUTHORIZED),
        (delete, ErrorCode.SHARE_NOT_FOUND),
        (set_password, ErrorCode.UNAUTHORIZED),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)


@ENDINGS
@pytest.mark.parametrize("prefix", ["", "share/"], ids=["all of it", "shares alone"])
async def test_what_was_ended_stays_so_after_a_restart(
    new_service, checked, store, alice, anonymous, caplog, end, answer, prefix
):
    share = (await new_service(checked()).create(alice, SESSION, DATA)).id
    old = contents(store)
    await end(new_service(checked()), alice, share)
    await put_back(store, old, prefix)
    restarted = new_service(checked())
    assert await refusal(restarted.agent_session(anonymous, share)) is answer
    assert caplog.text.count("Has somebody put an older copy") == 1
    # The store has it again as it was: so have servers that know nothing of it.
    assert await refusal(new_service().agent_session(anonymous, share)) is answer


@ENDINGS
async def test_what_was_ended_stays_so_while_the_server_runs(
    new_service, checked, store, alice, anonymous, end, answer
):
    service = new_service(checked(), shared_store=True)
    share = (await service.create(alice, SESSION, DATA)).id
    old = contents(store)
    await end(service, alice, share)
    await put_back(store, old)
    assert await refusal(service.agent_session(anonymous, share)) is answer


@ENDINGS
async def test_what_another_node_has_ended_stays_so_once_it_was_seen(
    new_service, checked, store, alice, anonymous, end, answer
):
    seeing, other = new_service(checked(), shared_store=True), new_service(shared_store=True)
    share = (await seeing.create(alice, SESSION, DATA)).id
    old = contents(store)
    await end(other, alice, share)
    assert await refusal(seeing.agent_session(anonymous, share)) is answer
    await put_back(store, old)
    assert await refusal(new_service(checked()).agent_session(anonymous, share)) is answer


async def test_an_older_generation_stays_gone(new_service, checked, store, alice, anonymous):
    service = new_service(checked())
    share = (await service.create(alice, SESSION, DATA)).id
    old = contents(store)
    await service.delete(alice, share, None)
    await service.create(alice, SESSION)
    await put_back(store, old)
    assert b"confidential" not in await new_service(checked()).agent_session(anonymous, share)


@pytest.mark.parametrize("is_seen_by_reading", [False, True])
async def test_a_generation_from_before_the_deleted_one_stays_gone(
    new_service, checked, store, alice, anonymous, is_seen_by_reading
):
    """It was not deleted itself: the store was put back to before it, and the share made anew."""
    nothing = contents(store)
    share = (await new_service(None if is_seen_by_reading else checked()).create(alice, SESSION, DATA)).id
    await new_service(checked()).agent_session(anonymous, share)
    old = contents(store)
    await put_back(store, nothing)
    service = new_service(checked())
    assert (await service.create(alice, SESSION)).id == share
    await service.delete(alice, share, None)
    await put_back(store, old)
    assert await refusal(new_service(checked()).agent_session(anonymous, share)) is ErrorCode.SHARE_NOT_FOUND


async def test_a_share_that_was_made_anew_elsewhere_is_no_former_one(new_service, checked, store, alice):
    share = (await new_service(checked()).create(alice, SESSION, DATA)).id
    await new_service(checked()).delete(alice, share, None)
    await new_service().create(alice, SESSION, DATA)
    assert b"confidential" in await new_service(checked()).agent_session(alice, share)


async def test_the_id_of_a_share_that_has_vanished_is_nobody_elses(new_service, checked, store, alice, bob):
    old = contents(store)
    service = new_service(checked())
    share = (await service.create(alice, SESSION, DATA)).id
    await make_private(service, alice, share)
    await put_back(store, old)
    assert (await new_service(checked()).create(bob, SESSION)).id != share


async def test_a_share_that_was_deleted_can_be_made_anew_by_its_owner(new_service, checked, store, alice):
    service = new_service(checked())
    share = (await service.create(alice, SESSION, DATA)).id
    old = contents(store)
    await service.delete(alice, share, None)
    await put_back(store, old)
    restarted = new_service(checked())
    assert (await restarted.create(alice, SESSION)).id == share
    assert b"confidential" not in await restarted.agent_session(alice, share)


async def test_what_was_not_ended_is_read_as_it_is_and_nothing_is_told(
    new_service, checked, store, alice, caplog
):
    service = new_service(checked())
    for number in range(3):
        share = (await service.create(alice, f"ses_1234567{number}", DATA)).id
        await make_private(service, alice, share)
        await service.update(alice, share, None, {"visibility": "link"})
        await service.delete(alice, share, None)
        await service.create(alice, f"ses_1234567{number}", DATA)
    restarted = new_service(checked())
    assert (await restarted.list_own(alice)).count == 3
    for row in (await restarted.list_own(alice)).sessions:
        assert b"confidential" in await restarted.agent_session(alice, row.id)
    assert "older" not in caplog.text


# API keys


def shown(made):
    return Credential(CredentialKind.TOKEN, made.key)


@pytest.mark.parametrize("end", ["revoke", "rotate"])
async def test_a_revoked_key_stays_revoked(checked, store, end, caplog):
    keys = ApiKeys(checked())
    made = await keys.create("laptop")
    old = contents(store)
    await getattr(keys, end)(made.kept.id)
    await put_back(store, old)
    verifier = ApiKeyVerifier(checked())
    assert await refusal(verifier.verify(shown(made))) is ErrorCode.UNAUTHORIZED
    assert "the key has been revoked" in caplog.text
    assert [key.revoked_at is None for key in await ApiKeys(store).list()] == [False]


async def test_a_key_revoked_on_the_command_line_stays_so_once_a_server_has_seen_it(checked, store):
    made = await ApiKeys(store).create("laptop")
    old = contents(store)
    verifier = ApiKeyVerifier(checked())
    await verifier.refresh()
    await ApiKeys(store).revoke(made.kept.id)
    await verifier.refresh()
    await put_back(store, old)
    restarted = ApiKeyVerifier(checked())
    await restarted.refresh()
    assert await refusal(restarted.verify(shown(made))) is ErrorCode.UNAUTHORIZED


def claims(token_id="one", issued_at=1.0):
    return TokenClaims("https://id.example", token_id, "ci", issued_at)


@pytest.mark.parametrize("of", [{"token_id": "one"}, {"subject": "ci"}, {}], ids=["token", "subject", "all"])
async def test_revoked_tokens_stay_revoked(checked, store, of, caplog):
    await TokenRevocations(store).revoke(**of)
    await EndedTokens(checked()).refresh()
    await put_back(store, {}, "auth/revoked/")
    restarted = EndedTokens(checked())
    await restarted.refresh()
    assert await refusal(restarted.check(claims())) is ErrorCode.UNAUTHORIZED
    assert "tokens have been revoked by it" in caplog.text
    assert len(await TokenRevocations(store).list()) == 1


async def test_a_revocation_that_a_server_has_removed_in_time_does_not_come_back(checked, store):
    made = await TokenRevocations(store, clock=lambda: 0.0).revoke(token_id="one", expires_in="1d")
    ended = EndedTokens(checked())
    await ended.refresh()
    await ended.prune()
    restarted = EndedTokens(checked())
    await restarted.refresh()
    await restarted.check(claims())
    assert f"auth/revoked/{made.id}" not in contents(store)


# Telling of it


async def test_doctor_tells_of_what_was_put_back_and_puts_it_right(
    new_service, checked, store, alice, marks_path
):
    service, keys = new_service(checked()), ApiKeys(checked())
    share = (await service.create(alice, SESSION, DATA)).id
    made = await keys.create("laptop")
    old = contents(store)
    await make_private(service, alice, share)
    await keys.revoke(made.kept.id)
    ended = f"auth/revoked/{(await TokenRevocations(checked()).revoke()).id}"
    marks = HighWaterMarks.open(marks_path)
    report = await examine(store, patience=0, marks=marks)
    assert [finding.problem for finding in report.findings] == [Problem.INDEX] * len(report.findings)
    await put_back(store, old)
    for fix in (False, True):
        report = await examine(store, fix=fix, grace=0, patience=0, marks=marks)
        rolled_back = [each for each in report.findings if each.problem is Problem.ROLLED_BACK]
        assert {each.place for each in rolled_back} == {
            objects.head_key(share),
            f"auth/key/{made.kept.id}",
            ended,
        }
        assert all(each.fixed is fix for each in rolled_back)
    report = await examine(store, patience=0, marks=marks)
    assert Problem.ROLLED_BACK not in {each.problem for each in report.findings}
    marks.close()


def test_a_file_that_is_no_database_is_told_of(marks_path):
    marks_path.write_text("not a database, and long enough to be taken for one" * 100)
    with pytest.raises(MarksError, match=r"marks\.sqlite3: file is not a database"):
        HighWaterMarks.open(marks_path)


def test_the_file_is_its_owners_alone(marks_path):
    HighWaterMarks.open(marks_path).close()
    assert marks_path.stat().st_mode & 0o077 == 0


async def test_the_oldest_marks_are_forgotten(marks_path, monkeypatch):
    monkeypatch.setattr("rpcshare.shares.rollback._MOST", 20)
    monkeypatch.setattr("rpcshare.shares.rollback._FORGOTTEN_AT_ONCE", 10)
    marks = HighWaterMarks.open(marks_path)
    for number in range(100):
        head = objects.Head(objects.VERSION, f"{number:016x}", deleted=True)
        marks.note(objects.head_key(f"{number:08}"), objects.encode_head(head))
    kept = list(marks)
    assert 20 <= len(kept) <= 30
    assert kept[-1] == objects.head_key("00000099")
    marks.close()
