"""Users in the database of records: who signs in becomes whom, and what ends a session."""

import asyncio

import pytest

from people.signing import who
from rpcshare.auth.caller import Role, Scope
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.auth.people import People
from rpcshare.auth.sign_in import who_signs_in
from rpcshare.auth.sign_in_providers import Provider, parse_providers
from rpcshare.auth.user_callers import UserCallers
from rpcshare.database import parse_location
from rpcshare.database.engine import Database
from rpcshare.database.schema_version import RECORDS
from rpcshare.errors import ErrorCode, ShareError


def cookie(secret: str) -> Credential:
    return Credential(CredentialKind.SESSION, secret)


async def test_who_signs_in_again_is_the_same_user(people):
    first = await people.sign_in(who())
    again = await people.sign_in(who(name="Alice B.", email="alice@new.example"))
    assert again.id == first.id
    assert (again.name, again.email) == ("Alice B.", "alice@new.example")


async def test_the_same_subject_of_another_issuer_is_another_user(people):
    first = await people.sign_in(who())
    other = await people.sign_in(who(issuer="https://other.example", email_is_trusted=False))
    assert other.id != first.id


async def test_an_address_verified_by_trusted_providers_links_to_one_user(people):
    first = await people.sign_in(who())
    linked = await people.sign_in(who(issuer="https://github.com", subject="17", provider="github"))
    assert linked.id == first.id
    assert {each.issuer for each in await people.identities_of(first.id)} == {
        "https://id.example",
        "https://github.com",
    }


@pytest.mark.parametrize(("first_trusted", "second_trusted"), [(False, True), (True, False)])
async def test_an_address_that_either_provider_has_not_verified_links_to_nobody(
    people, first_trusted, second_trusted
):
    first = await people.sign_in(who(email_is_trusted=first_trusted))
    other = await people.sign_in(who(issuer="https://b.example", email_is_trusted=second_trusted))
    assert other.id != first.id


async def test_an_address_links_to_nobody_of_another_organization(people):
    first = await people.sign_in(who())
    other = await people.sign_in(who(issuer="https://b.example", organization="globex"))
    assert other.id != first.id
    assert (first.organization, other.organization) == ("acme", "globex")


async def test_two_browsers_that_sign_in_at_once_make_one_user(people):
    found = await asyncio.gather(*(people.sign_in(who()) for _ in range(8)))
    assert len({user.id for user in found}) == 1


async def test_who_belongs_to_no_organization_has_one_alone(people):
    one = await people.sign_in(who(organization=""))
    other = await people.sign_in(who(organization="", subject="bob"))
    assert one.organization != other.organization


async def test_a_role_by_map_counts_at_each_sign_in_and_ends_with_it(people):
    await people.sign_in(who(role=Role.ADMIN))
    assert (await people.sign_in(who())).role is Role.MEMBER


async def test_a_role_that_an_admin_gave_stays_where_the_map_says_nothing(people):
    user = await people.sign_in(who())
    await people.set_role(user.id, Role.VIEWER)
    assert (await people.sign_in(who())).role is Role.VIEWER


async def test_a_disabled_user_cannot_sign_in(people):
    user = await people.sign_in(who())
    await people.set_disabled(user.id, disabled=True)
    with pytest.raises(ShareError, match="this account is disabled") as refused:
        await people.sign_in(who())
    assert refused.value.code is ErrorCode.FORBIDDEN


async def test_a_session_stands_for_its_user(people):
    user = await people.sign_in(who())
    secret = await people.begin_session(user, "example", "127.0.0.1", "a browser")
    caller = await UserCallers(people).verify(cookie(secret))
    assert caller is not None
    assert (caller.subject, caller.organization, caller.scopes) == (user.id, "acme", {Scope.CREATE})
    assert caller.owner == f"user:acme\x1f{user.id}"


@pytest.mark.parametrize("kind", [CredentialKind.TOKEN, CredentialKind.API_KEY, CredentialKind.PATH_KEY])
async def test_the_secret_of_a_session_is_no_token(people, kind):
    user = await people.sign_in(who())
    secret = await people.begin_session(user, "example", "", "")
    assert await UserCallers(people).verify(Credential(kind, secret)) is None


async def test_the_database_has_no_secret_of_a_session(people, records):
    user = await people.sign_in(who())
    secret = await people.begin_session(user, "example", "", "")
    rows = await records.read(lambda c: c.exec_driver_sql("SELECT * FROM sessions").all())
    assert rows
    assert secret not in str(rows)
    assert secret.removeprefix("rss_") not in str(rows)


@pytest.mark.parametrize("what", ["session", "all sessions", "disable", "role"])
async def test_what_ends_rights_ends_them_on_another_node(people, records_url, what):
    user = await people.sign_in(who())
    secret = await people.begin_session(user, "example", "", "")
    database = await Database.open(parse_location(records_url), schema=RECORDS)
    async with UserCallers(People(database), refresh_interval=0.05).refreshing() as elsewhere:
        caller = await elsewhere.verify(cookie(secret))
        assert caller is not None
        assert caller.standing is not None
        ended = asyncio.Event()
        caller.standing.on_end(ended.set)
        match what:
            case "session":
                (session,) = await people.sessions_of(user.id)
                await people.end_sessions(user.id, session.id)
            case "all sessions":
                await people.end_sessions(user.id)
            case "disable":
                await people.set_disabled(user.id, disabled=True)
            case _:
                await people.set_role(user.id, Role.VIEWER)
        await asyncio.wait_for(ended.wait(), 30)
        again = await elsewhere.verify(cookie(secret))
        assert (again is not None) == (what == "role")
        if again is not None:
            assert again.scopes == frozenset()
    await database.close()


async def test_a_key_allows_no_more_than_the_role_of_its_user(people):
    user = await people.sign_in(who())
    callers, holds = UserCallers(people), CredentialValidity()
    by_key = await callers.caller_of_key(user.id, "acme", frozenset({Scope.CREATE, Scope.READ}), holds)
    assert by_key is not None
    assert by_key.scopes == {Scope.CREATE}
    assert by_key.user is not None
    assert not by_key.user.is_whole
    assert await callers.caller_of_key(user.id, "globex", frozenset({Scope.CREATE}), holds) is None


async def test_an_admin_of_an_organization_finds_its_users_alone(people):
    mine = await people.sign_in(who())
    theirs = await people.sign_in(who(subject="bob", organization="globex"))
    listed, cursor = await people.page("acme")
    assert ([user.id for user in listed], cursor) == ([mine.id], None)
    for act in (
        people.find(theirs.id, "acme"),
        people.set_role(theirs.id, Role.ADMIN, "acme"),
        people.set_disabled(theirs.id, disabled=True, organization="acme"),
    ):
        with pytest.raises(ShareError, match="there is no such user"):
            await act


async def test_pages_of_users_have_each_user_once(people):
    made = {(await people.sign_in(who(subject=str(number)))).id for number in range(7)}
    seen, cursor = [], None
    while True:
        users, cursor = await people.page(None, cursor=cursor, limit=3)
        seen += [user.id for user in users]
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)


async def test_users_are_kept_when_the_projection_is_made_anew(people, records_url):
    from rpcshare.shares.search import open_index

    user = await people.sign_in(who())
    location = parse_location(records_url)
    if location.path is not None:
        location = location._replace(path=location.path.with_name("database.sqlite3"))
    index = await open_index(location)
    tables = ("shares", "texts", "catalogue")
    await index.database.write(lambda c: [c.exec_driver_sql(f"DELETE FROM {name}") for name in tables])
    await index.database.close()
    assert (await people.find(user.id)).email == "alice@acme.example"


async def test_an_address_is_the_same_in_any_case(people):
    first = await people.sign_in(who_signs_in(trusted("one"), claims("1", email="Alice@Acme.Example")))
    other = await people.sign_in(who_signs_in(trusted("two"), claims("2", email="alice@ACME.example")))
    assert other.id == first.id


@pytest.mark.parametrize("name", ["preferred_username", "name", "upn", "nickname"])
async def test_no_name_that_its_owner_chooses_makes_one_user_of_two(people, name):
    first = await people.sign_in(who_signs_in(trusted("one"), claims("1", **{name: "admin"})))
    other = await people.sign_in(who_signs_in(trusted("one"), claims("2", **{name: "admin"})))
    assert other.id != first.id


async def test_addresses_of_one_name_at_two_domains_are_two_users(people):
    first = await people.sign_in(who_signs_in(trusted("one"), claims("1", email="bob@corp.example")))
    other = await people.sign_in(who_signs_in(trusted("two"), claims("2", email="bob@partner.example")))
    assert other.id != first.id


async def test_an_address_that_another_user_has_keeps_nobody_out(people):
    """Not trusted, it links to nobody; and it is no reason to refuse who has it."""
    first = await people.sign_in(who_signs_in(trusted("one"), claims("1", email="a@acme.example")))
    for subject in ("2", "3"):
        said = claims(subject, email="a@acme.example", email_verified=False)
        other = await people.sign_in(who_signs_in(trusted("two"), said))
        assert other.id != first.id
        assert (await people.sign_in(who_signs_in(trusted("two"), said))).id == other.id


async def test_an_address_that_two_users_have_links_to_neither(people):
    for name, number in (("one", "1"), ("one", "2")):
        user = await people.sign_in(
            who_signs_in(trusted(name), claims(number, email=f"{number}@acme.example"))
        )
        await people.sign_in(who_signs_in(trusted(name), claims(number, email="shared@acme.example")))
        assert user.id
    third = await people.sign_in(who_signs_in(trusted("two"), claims("3", email="shared@acme.example")))
    assert len(await people.find_by_email("shared@acme.example")) == 3
    assert [each.subject for each in await people.identities_of(third.id)] == ["3"]


def trusted(name: str) -> Provider:
    given = {"issuer": f"https://{name}.example", "client_id": "x", "trusted": True, "organization": "acme"}
    (made,) = parse_providers({name: given})
    return made


def claims(subject: str, **more: object) -> dict[str, object]:
    return {"sub": subject, "email_verified": True, **more}
