"""No call about users crosses an organization: each of them, by each caller, of drawn memberships."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from people.signing import who
from rpcshare.auth.allowances import Allowance, Allowances
from rpcshare.auth.caller import Caller, Role, Scope
from rpcshare.auth.organization_audit import OrganizationAudit
from rpcshare.auth.people import People
from rpcshare.auth.request_rates import RequestRates
from rpcshare.auth.sign_in import SignIns
from rpcshare.auth.subject_sources import Source, user_source
from rpcshare.auth.user_callers import UserCallers
from rpcshare.auth.users import User
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.database import parse_location
from rpcshare.database.engine import Database
from rpcshare.database.schema_version import RECORDS
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.user_limits import LimitOptions, UserLimits
from rpcshare.server.users_rpc import AuditOptions, ClaimOptions, UserListOptions, UsersRpc
from rpcshare.server.web.user_sign_in import SignedIn
from rpcshare.shares import Credentials, ShareService
from rpcshare.storage import MemoryStore

ORGANIZATIONS = ("acme", "globex", "acme/eu")
REFUSED = {ErrorCode.FORBIDDEN, ErrorCode.UNAUTHORIZED, ErrorCode.INVALID_ARGUMENT}

Call = Callable[[UsersRpc], Awaitable[Any]]


class World:
    """Users of a few organizations, and what each may call."""

    def __init__(self, database: Database) -> None:
        self.people = People(database)
        self.audit = OrganizationAudit(database)
        self.allowances = Allowances(Allowance(shares=10))
        credentials = Credentials(UUID(int=1), "https://share.example")
        self.service = ShareService(
            MemoryStore(), LocalBroadcaster(), credentials, allowances=self.allowances
        )
        self.service.audit.on_event = self.audit.record
        self.rates = RequestRates(self.allowances)

    def users_of(self, caller: Caller) -> UsersRpc:
        unused: Any = (None, None)
        sign_ins: SignIns = unused[0]
        callers: UserCallers = unused[1]
        signed_in = SignedIn(self.people, sign_ins, callers, self.allowances, self.audit)
        limits = UserLimits(self.people, self.rates, self.service)
        return UsersRpc(signed_in, caller, self.service, limits)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    location = parse_location(f"sqlite:///{tmp_path}/records.sqlite3")
    database = await Database.open(location, schema=RECORDS)
    made = World(database)
    yield made
    await made.service.close()
    await database.close()


def caller_of(user: User, *, by_key: bool) -> Caller:
    of = user.caller_user
    scopes = user.role.scopes & {Scope.CREATE} if by_key else user.role.scopes
    of = of if not by_key else type(of)(of.id, of.organization, of.role, is_whole=False)
    return Caller(user.id, scopes, source=user_source(user.organization), user=of)


def calls_about(user: User, organization: str, sets_limits: dict[str, int]) -> dict[str, Call]:
    """Return each call that is about one user, or one organization, by its name."""
    return {
        "get": lambda users: users.get(user.id),
        "setRole": lambda users: users.set_role(user.id, "viewer"),
        "disable": lambda users: users.disable(user.id),
        "enable": lambda users: users.enable(user.id),
        "limits": lambda users: users.limits(user.id),
        "setLimits": lambda users: users.set_limits(user.id, LimitOptions(**sets_limits)),
        "claimShares": lambda users: users.claim_shares(user.id, ClaimOptions("ci")),
        "list": lambda users: users.list(UserListOptions(organization=organization)),
        "organizationLimits": lambda users: users.organization_limits(organization),
        "setOrganizationLimits": lambda users: users.set_organization_limits(
            organization, LimitOptions(**sets_limits)
        ),
        "audit": lambda users: users.audit(AuditOptions(organization=organization)),
    }


OF_ORGANIZATIONS = {"list", "organizationLimits", "setOrganizationLimits", "audit"}
OF_SERVER_ADMINS = {"setOrganizationLimits", "claimShares"}
CHANGES_OTHERS = {"setRole", "disable", "enable", "setLimits"}


def may(caller: Caller, name: str, target: User, organization: str) -> bool:
    """Say it once more, without the code that decides it."""
    if caller.has(Scope.ADMIN):
        manages = True
    else:
        of = organization if name in OF_ORGANIZATIONS else target.organization
        user = caller.user
        manages = user is not None and user.is_whole and user.role is Role.ADMIN and user.organization == of
    if name in OF_SERVER_ADMINS and not caller.has(Scope.ADMIN):
        return False
    if name in CHANGES_OTHERS:
        is_own = caller.user is not None and caller.user.id == target.id
        is_above = target.role is Role.SERVER_ADMIN and not caller.has(Scope.ADMIN)
        return manages and not is_own and not is_above
    return manages


async def drawn(world: World, chance: random.Random) -> tuple[list[User], list[Caller]]:
    users = []
    for number in range(7):
        user = await world.people.sign_in(
            who(subject=f"{number}", email="", organization=chance.choice(ORGANIZATIONS))
        )
        users.append(await world.people.set_role(user.id, chance.choice(list(Role))))
    callers = [caller_of(user, by_key=chance.random() < 0.2) for user in users]
    machines = [
        Caller("ci", frozenset({Scope.CREATE}), source=Source.KEY),
        Caller("auditor", frozenset({Scope.READ}), source=Source.KEY),
        Caller("admin", frozenset({Scope.ADMIN}), source=Source.ADMIN),
        Caller(None),
    ]
    return users, [*callers, *machines]


async def answer_of(call: Call, users_of: Callable[[Caller], UsersRpc], caller: Caller) -> Any:
    """Return what a call answers; None: it is refused."""
    try:
        return await call(users_of(caller))
    except ShareError as exc:
        if exc.code not in REFUSED:
            raise
        return None


@pytest.mark.parametrize("seed", range(6))
async def test_no_call_about_users_crosses_an_organization(world: World, seed: int) -> None:
    chance = random.Random(seed)
    users, callers = await drawn(world, chance)
    there = {user.organization for user in users}
    for caller in callers:
        for target in users:
            organization = chance.choice(ORGANIZATIONS)
            for name, call in calls_about(target, organization, {"shares": 5}).items():
                is_of_none = name in OF_ORGANIZATIONS - {"list"} and organization not in there
                expected = may(caller, name, target, organization) and not is_of_none
                answer = await answer_of(call, world.users_of, caller)
                # As it was before.
                await world.people.set_role(target.id, target.role)
                await world.people.set_disabled(target.id, disabled=False)
                assert (answer is not None) == expected, (name, caller, target, organization)
                if name == "list" and answer is not None:
                    assert {each["organization"] for each in answer["users"]} <= {organization}


@pytest.mark.parametrize("seed", range(6))
async def test_without_naming_one_a_caller_is_told_of_the_own_organization_alone(
    world: World, seed: int
) -> None:
    chance = random.Random(100 + seed)
    users, callers = await drawn(world, chance)
    for caller in callers:
        try:
            found = world.users_of(caller)
        except ShareError:
            continue
        own = {caller.organization} if not caller.has(Scope.ADMIN) else {user.organization for user in users}
        listed = await found.list(None)
        assert {each["organization"] for each in listed["users"]} == own
        organizations = await found.organizations(None)
        assert {each["name"] for each in organizations["organizations"]} == own
        if not caller.has(Scope.ADMIN):
            events = await found.audit(None)
            of_others = [user.id for user in users if user.organization != caller.organization]
            assert not [each for each in events["events"] if each["subject"] in of_others]


async def test_an_admin_of_an_organization_lifts_no_limit_of_the_settings(world: World) -> None:
    admin = await world.people.sign_in(who(subject="admin"))
    admin = await world.people.set_role(admin.id, Role.ADMIN)
    user = await world.people.sign_in(who(subject="user", email=""))
    users = world.users_of(caller_of(admin, by_key=False))
    for number in (0, 11, 2**53):
        with pytest.raises(ShareError) as caught:
            await users.set_limits(user.id, LimitOptions(shares=number))
        assert caught.value.code is ErrorCode.FORBIDDEN
    assert (await users.set_limits(user.id, LimitOptions(shares=3)))["user"]["shares"]["limit"] == 3
    assert (await users.set_limits(user.id, LimitOptions(shares=None)))["user"]["shares"]["limit"] == 10
