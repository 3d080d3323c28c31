"""What users and organizations may have: shares, bytes and requests, checked before anything is written."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from rpcshare.auth.allowances import (
    Allowance,
    Allowances,
    ChosenAllowance,
    checked_choice,
    organization_key,
    user_key,
)
from rpcshare.auth.caller import Caller, CallerKey, CallerUser, Role, Scope
from rpcshare.auth.request_rates import RequestRates
from rpcshare.auth.subject_sources import user_source
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.database import DatabaseError, parse_location
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import Credentials, ShareService
from rpcshare.shares.search import SearchSettings, open_index
from rpcshare.shares.usage import Usage
from rpcshare.storage import MemoryStore


def user(name: str = "alice", organization: str = "acme", role: Role = Role.MEMBER) -> Caller:
    who = CallerUser(f"usr_{name}", organization, role)
    return Caller(who.id, role.scopes | {Scope.CREATE}, source=user_source(organization), user=who)


def text(size: int, part: str = "prt_1") -> list[dict[str, Any]]:
    return [{"type": "part", "data": {"id": part, "messageID": "msg_1", "type": "text", "text": "x" * size}}]


Serve = Callable[[Allowances], ShareService]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Make nodes of one server: with one store and one database."""
    store, broadcaster, made = MemoryStore(), LocalBroadcaster(), list[ShareService]()
    location = parse_location(f"sqlite:///{tmp_path}/database.sqlite3")
    credentials = Credentials(uuid.UUID(int=1), "https://share.example")

    def make(allowances: Allowances) -> ShareService:
        search = SearchSettings(lambda: open_index(location), compare_every=300.0)
        service = ShareService(
            store, broadcaster, credentials, allowances=allowances, search=search, shared_store=True
        )
        service.start_search()
        made.append(service)
        return service

    yield make
    for each in made:
        await each.close()


def of_users(**limits: int) -> Allowances:
    return Allowances(Allowance(**limits))


def of_organizations(**limits: int) -> Allowances:
    return Allowances(of_organizations=Allowance(**limits))


async def refused(call: Any, code: ErrorCode, match: str) -> None:
    with pytest.raises(ShareError, match=match) as caught:
        await call
    assert caught.value.code is code


# Shares


async def test_a_user_has_as_many_shares_as_are_allowed(serve: Serve) -> None:
    service = serve(of_users(shares=2))
    for number in range(2):
        await service.create(user(), f"ses_{number}")
    await refused(service.create(user(), "ses_2"), ErrorCode.FORBIDDEN, "this user may have at most 2 shares")
    assert (await service.list_own(user())).count == 2
    await service.create(user("bob"), "ses_3")  # is another


async def test_what_is_refused_leaves_nothing_behind(serve: Serve) -> None:
    service = serve(of_users(shares=1))
    await service.create(user(), "ses_0")
    await refused(service.create(user(), "ses_other"), ErrorCode.FORBIDDEN, "1 shares")
    # Not even who was the first to share the session: another user has its usual secret.
    made = await service.create(user("bob"), "ses_other")
    assert made.secret == (await service.create(user("bob"), "ses_other")).secret


async def test_the_own_share_is_found_again_at_the_limit(serve: Serve) -> None:
    service = serve(of_users(shares=1, storage=100_000))
    made = await service.create(user(), "ses_0", text(10))
    assert (await service.create(user(), "ses_0", text(20))).id == made.id


async def test_deleting_makes_room_at_once(serve: Serve) -> None:
    service = serve(of_users(shares=1, storage=5000))
    for number in range(4):
        made = await service.create(user(), f"ses_{number}", text(4000))
        await refused(service.create(user(), "ses_more"), ErrorCode.FORBIDDEN, "1 shares")
        await service.delete(user(), made.id, None)


async def test_what_has_expired_makes_room(serve: Serve) -> None:
    service = serve(of_users(shares=1))
    made = await service.create(user(), "ses_0", options={"expiresIn": 0.05})
    await asyncio.sleep(0.1)
    await service.remove_expired()
    with pytest.raises(ShareError):
        await service.metadata(user(), made.id)
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        try:
            await service.create(user(), "ses_1")
        except ShareError:
            assert asyncio.get_running_loop().time() < deadline
            await service.remove_expired()
            await asyncio.sleep(0.05)
        else:
            break


async def test_many_creates_at_once_make_no_more_than_are_allowed(serve: Serve) -> None:
    service = serve(of_organizations(shares=5))
    calls = (service.create(user(f"{number % 3}"), f"ses_{number}") for number in range(20))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in outcomes) == 5


async def test_another_node_counts_what_this_one_has_made(serve: Serve) -> None:
    here, there = serve(of_organizations(shares=2)), serve(of_organizations(shares=2))
    await here.create(user(), "ses_0")
    await here.create(user("bob"), "ses_1")
    await asyncio.wait_for(_until_usage(there, Usage(2, 0)), 30)
    await refused(there.create(user("carol"), "ses_2"), ErrorCode.FORBIDDEN, "this organization")


async def _until_usage(service: ShareService, wanted: Usage) -> None:
    owner = user().owner
    assert owner is not None
    while (await service.usage(owner)).organization.shares != wanted.shares:  # noqa: ASYNC110 -- another node's
        await asyncio.sleep(0.02)


async def test_an_adopted_share_counts(serve: Serve) -> None:
    open_to_all = serve(of_users(shares=1))
    open_to_all._anonymous_create = True
    anonymous = await open_to_all.create(Caller(None), "ses_nobodys")
    await open_to_all.create(user(), "ses_0")
    asked = open_to_all.create(user(), "ses_nobodys", options={"secret": anonymous.secret})
    await refused(asked, ErrorCode.FORBIDDEN, "1 shares")


# Storage


async def test_a_sync_that_exceeds_the_storage_is_refused_and_changes_nothing(serve: Serve) -> None:
    service = serve(of_users(storage=10_000))
    one = await service.create(user(), "ses_1", text(4000))
    two = await service.create(user(), "ses_2", text(4000))
    await refused(
        service.sync(user(), two.id, None, text(4000, "prt_2")),
        ErrorCode.PAYLOAD_TOO_LARGE,
        "may hold at most 10,000 bytes together",
    )
    assert (await service.metadata(user(), two.id)).part_count == 1
    await service.sync(user(), one.id, None, text(1000, "prt_2"))


async def test_replacing_what_is_there_by_no_more_is_allowed_at_the_limit(serve: Serve) -> None:
    service = serve(of_users(storage=5000))
    made = await service.create(user(), "ses_1", text(4800))
    for size in (4800, 4700, 4800, 100):
        await service.sync(user(), made.id, None, text(size))
    await service.sync(user(), made.id, None, text(4000, "prt_2"))


async def test_who_shows_the_secret_fills_the_room_of_the_owner(serve: Serve) -> None:
    service = serve(of_users(storage=5000))
    made = await service.create(user(), "ses_1", text(4000))
    stranger = Caller(None)
    await refused(
        service.sync(stranger, made.id, made.secret, text(4000, "prt_2")),
        ErrorCode.PAYLOAD_TOO_LARGE,
        "of this user",
    )


async def test_syncs_at_once_hold_no_more_together_than_is_allowed(serve: Serve) -> None:
    service = serve(of_organizations(storage=20_000))
    made = [await service.create(user(f"{number}"), f"ses_{number}") for number in range(4)]
    calls = (
        service.sync(user(f"{number % 4}"), made[number % 4].id, None, text(1000, f"prt_{number}"))
        for number in range(60)
    )
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    done = sum(not isinstance(each, BaseException) for each in outcomes)
    used = (await service.usage(user("0").owner or "")).organization.storage
    assert used <= 20_000
    assert 15 <= done <= 19  # of 1,050 bytes each


async def test_storage_is_given_back_by_shrinking_and_deleting(serve: Serve) -> None:
    service = serve(of_users(storage=5000))
    one = await service.create(user(), "ses_1", text(4500))
    await refused(service.create(user(), "ses_2", text(4500)), ErrorCode.PAYLOAD_TOO_LARGE, "5,000")
    await service.sync(user(), one.id, None, text(10))
    two = await service.create(user(), "ses_2", text(4500))
    await service.delete(user(), two.id, None)
    await service.create(user(), "ses_3", text(4500))


async def test_usage_is_exact_after_random_work_and_after_counting_anew(serve: Serve) -> None:
    service = serve(of_users(storage=10**9))
    ids = [(await service.create(user(f"{n % 2}"), f"ses_{n}", text(n * 10))).id for n in range(10)]
    for number, share_id in enumerate(ids):
        await service.sync(user(f"{number % 2}"), share_id, None, text(300 - number, "prt_2"))
    for number in (0, 3):
        await service.delete(user(f"{number % 2}"), ids[number], None)
    sizes = []
    for number, share_id in enumerate(ids):
        if number not in (0, 3):
            async with service._shares.opened(share_id) as share:
                sizes.append(share.state.content.size)
    found = await service.usage(user("0").owner or "")
    assert (found.organization, found.user.shares) == (Usage(8, sum(sizes)), 4)
    index = await service._shares.listing._projection.index()
    await service._shares.listing._projection.rows.write()
    await index.catalogue.count_anew()
    assert await service.usage(user("0").owner or "") == found


async def test_those_who_are_no_users_have_no_limit(serve: Serve) -> None:
    service = serve(of_users(shares=1, storage=10))
    machine = Caller("ci", frozenset({Scope.CREATE}), source="key")
    for number in range(3):
        await service.create(machine, f"ses_{number}", text(100))


async def test_without_the_database_the_last_that_was_known_counts(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(of_users(shares=1))
    await service.create(user(), "ses_0")
    with pytest.raises(ShareError):
        await service.create(user(), "ses_1")

    async def fails(_owner: str) -> tuple[Usage, Usage]:
        raise DatabaseError("gone")

    monkeypatch.setattr(service._shares.quotas, "_look", fails)
    await refused(service.create(user(), "ses_1"), ErrorCode.FORBIDDEN, "1 shares")
    await service.create(user("bob"), "ses_2")  # of whom nothing is known is let in: syncs go on


# Requests


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_user_makes_as_many_requests_a_minute_as_are_allowed() -> None:
    clock = Clock()
    rates = RequestRates(of_users(requests=2), clock)
    for _ in range(2):
        rates.take(user())
    with pytest.raises(ShareError, match="Too many requests of this user: 2 a minute") as caught:
        rates.take(user())
    assert (caught.value.code, caught.value.retry_after) == (ErrorCode.RATE_LIMITED, 60)
    rates.take(user("bob"))
    clock.now = 60
    rates.take(user())


def test_a_key_has_a_rate_of_its_own_within_that_of_the_user() -> None:
    rates = RequestRates(of_users(requests=3), Clock())
    by_key = Caller("usr_alice", user=user().user, key=CallerKey("k1", 1))
    rates.take(by_key)
    with pytest.raises(ShareError, match="this API key: 1 a minute"):
        rates.take(by_key)
    for _ in range(2):  # what the key was refused is not counted for its user
        rates.take(user())
    with pytest.raises(ShareError, match="this user"):
        rates.take(user())


def test_all_users_of_an_organization_share_its_requests() -> None:
    rates = RequestRates(of_organizations(requests=2), Clock())
    rates.take(user("a"))
    rates.take(user("b"))
    with pytest.raises(ShareError, match="this organization"):
        rates.take(user("c"))
    rates.take(user("a", "globex"))


# What admins choose


def test_what_is_chosen_counts_before_the_settings() -> None:
    allowances = of_users(shares=5, storage=100)
    allowances.know({user_key("usr_a"): ChosenAllowance(shares=0, storage=7)})
    allowances.learn(organization_key("acme"), ChosenAllowance(requests=3))
    assert allowances.of_user("usr_a") == Allowance(storage=7)
    assert allowances.of_user("usr_b") == Allowance(100, 5)
    assert allowances.of_organization("acme") == Allowance(requests=3)


@pytest.mark.parametrize("number", [0, 6])
def test_who_is_bound_chooses_no_more_than_the_settings_allow(number: int) -> None:
    with pytest.raises(ShareError, match="more than 5") as caught:
        checked_choice(ChosenAllowance(shares=number), Allowance(shares=5))
    assert caught.value.code is ErrorCode.FORBIDDEN
    checked_choice(ChosenAllowance(shares=5, storage=0), Allowance(shares=5))


@pytest.mark.parametrize("number", [-1, 2**53 + 1])
def test_a_limit_is_a_number_that_everybody_has_exactly(number: int) -> None:
    with pytest.raises(ShareError, match="storage: must be") as caught:
        checked_choice(ChosenAllowance(storage=number), None)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
