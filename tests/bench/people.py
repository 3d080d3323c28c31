"""10,000 users in 100 organizations, with 50,000 shares: signing in, and what users and admins look at."""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from bench.figures import Figure
from bench.listings import NOW, Times, row
from rpcshare.auth.audit import Action, AuditEvent
from rpcshare.auth.caller import Role
from rpcshare.auth.organization_audit import OrganizationAudit
from rpcshare.auth.people import People, session_hash
from rpcshare.auth.subject_sources import owner_name, user_source
from rpcshare.auth.users import SignIn, User
from rpcshare.database.engine import Database
from rpcshare.database.location import parse_location
from rpcshare.database.schema_version import RECORDS
from rpcshare.shares.catalogue import Catalogue
from rpcshare.shares.page import Query, Reach
from rpcshare.shares.reindexing import COMPLETE
from rpcshare.shares.search_index import SearchIndex

USERS, ORGANIZATIONS, SHARES = 10_000, 100, 50_000

Call = Callable[[], Awaitable[object]]


def who(number: int) -> SignIn:
    """Return what a provider says of a user."""
    return SignIn(
        issuer="https://id.example",
        subject=f"{number}",
        provider="example",
        organization=f"example/org{number % ORGANIZATIONS}",
        role=None,
        default_role=Role.ADMIN if number < ORGANIZATIONS else Role.MEMBER,
        email=f"user{number}@org{number % ORGANIZATIONS}.example",
        email_is_trusted=True,
        name=f"User {number}",
    )


async def _filled(folder: Path, users: int, shares: int) -> tuple[Database, Database, list[User], list[str]]:
    records = await Database.open(parse_location(f"sqlite:///{folder}/records.sqlite3"), schema=RECORDS)
    people, made, sessions = People(records), list[User](), list[str]()
    for number in range(users):
        made.append(await people.sign_in(who(number)))
        if number % 10 == 0:
            secret = await people.begin_session(made[-1], "example", "203.0.113.7", "a browser")
            sessions.append(session_hash(secret))
    audit = OrganizationAudit(records)
    for number in range(20_000):
        audit.record(
            AuditEvent(
                made[number % ORGANIZATIONS].organization,
                NOW + number,
                Action.KEY_CREATE,
                "ok",
                made[number % users].id,
                "203.0.113.7",
                {"key": f"{number}"},
            )
        )
        if number % 5000 == 4999:
            await audit.flush()
    projection = await Database.open(parse_location(f"sqlite:///{folder}/database.sqlite3"))
    index, rng = SearchIndex(projection), random.Random(shares)
    for start in range(0, shares, 2000):
        rows = []
        for number in range(start, min(start + 2000, shares)):
            user = rng.choice(made)
            owner, kind = owner_name(user_source(user.organization), user.id), number % 3
            of = row(number, rng)
            rows.append(
                msgspec.structs.replace(
                    of,
                    owner=owner,
                    is_private=kind == 1,
                    is_for_organization=kind == 2,
                    size=rng.randrange(100_000),
                )
            )
        await index.catalogue.put(rows)
    await index.note_progress(COMPLETE, "yes")
    return records, projection, made, sessions


def calls(
    people: People, audit: OrganizationAudit, catalogue: Catalogue, users: list[User], sessions: list[str]
) -> dict[str, Call]:
    """Return what is measured, each a call that is another each time."""
    rng = random.Random(1)
    fresh = iter(range(10**6, 10**7))

    def some() -> User:
        return rng.choice(users)

    def query(user: User, *, admin: bool) -> Query:
        owner = owner_name(user_source(user.organization), user.id)
        reach = Reach((owner,), user.organization, sees_all_of_it=admin)
        return Query(reach, None, 30, "")

    def searched() -> Query:
        user = some()
        owner = owner_name(user_source(user.organization), user.id)
        return Query(Reach((owner,), user.organization), None, 30, "fix the parser")

    return {
        "sign-in of a user": lambda: people.sign_in(who(rng.randrange(len(users)))),
        "sign-in of somebody new": lambda: people.sign_in(who(next(fresh))),
        "a session begins": lambda: people.begin_session(some(), "example", "203.0.113.7", "a browser"),
        "a session is looked up": lambda: people.find_session(rng.choice(sessions)),
        "a member's list": lambda: catalogue.page(query(some(), admin=False), NOW, {}),
        "an admin's list": lambda: catalogue.page(query(some(), admin=True), NOW, {}),
        "a member's list with a text": lambda: catalogue.page(searched(), NOW, {}),
        "members of an organization": lambda: people.page(some().organization),
        "members with a text": lambda: people.page(some().organization, query="user 77"),
        "all users with a text": lambda: people.page(None, query="user 7777"),
        "all organizations": lambda: people.organizations(limit=50),
        "what is used": lambda: catalogue.usage(
            owner_name(user_source(users[7].organization), users[7].id), {}
        ),
        "what was done in an organization": lambda: audit.page(users[rng.randrange(100)].organization),
    }


async def timed(call: Call, times: int) -> Times:
    """Return how long a call takes."""
    found = Times([], [])
    for _ in range(times):
        began, loop = time.perf_counter(), time.thread_time()
        await call()
        found.wall.append((time.perf_counter() - began) * 1e3)
        found.loop.append((time.thread_time() - loop) * 1e3)
    return found


async def measured(folder: Path, users: int, shares: int, times: int) -> dict[str, Times]:
    """Return the times of each call."""
    records, projection, made, sessions = await _filled(folder, users, shares)
    people, audit = People(records), OrganizationAudit(records)
    found = {}
    for name, call in calls(people, audit, Catalogue(projection), made, sessions).items():
        await timed(call, 5)
        found[name] = await timed(call, times)
    await records.close()
    await projection.close()
    return found


def run(*, quick: bool) -> Iterator[Figure]:
    """Yield the times."""
    users, shares, times = (1000, 5000, 100) if quick else (USERS, SHARES, 300)
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measured(Path(folder), users, shares, times))
    for name, each in found.items():
        yield Figure(f"{name}: {users:,} users, p50", "ms", each.p50, None, 20)
        yield Figure(f"{name}: {users:,} users, p99", "ms", each.p99, None, 20)
        loop = statistics.median(each.loop)
        yield Figure(f"{name}: {users:,} users, event loop, in 10 µs", "", loop * 100, None, 100)
