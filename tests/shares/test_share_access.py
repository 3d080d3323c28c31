"""Who may read a share: visibility, passwords and view tokens, on the service."""

import asyncio
import json

import msgspec
import pytest

from rpcshare.auth.caller import ANONYMOUS, Caller, Scope, View
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.auth.view_tokens import ViewTokenVerifier
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.context import wall_clock
from support.items import part
from support.share_stores import YieldingStore, contents

SESSION = "ses_e07c577c9ffeM4JP4I9eiXoPTK"
PASSWORD = "correct horse"


async def outcome(call):
    """Return the code with which ``call`` is refused, or None."""
    try:
        await call
    except ShareError as exc:
        return exc.code
    return None


async def refused(call):
    with pytest.raises(ShareError) as caught:
        await call
    return caught.value.code, caught.value.message


@pytest.fixture
def service(new_service):
    """View tokens end by the clock on the wall, so it is the service's here."""
    return new_service(clock=wall_clock)


@pytest.fixture
def bearer(credentials):
    """Return a function that makes the caller who shows a view token."""
    verifier = ViewTokenVerifier(credentials.view_tokens())

    async def caller(view_token):
        return await verifier.verify(Credential(CredentialKind.TOKEN, view_token.token))

    return caller


# Who may do what: a row for each caller, a column for each kind of share.

UNAUTHORIZED, FORBIDDEN = ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN
SHARES = {
    "link": {},
    "link with a password": {"password": PASSWORD},
    "private": {"visibility": "private"},
    "private with a password": {"visibility": "private", "password": PASSWORD},
}
CALLERS = {
    "anonymous": (ANONYMOUS, (None, UNAUTHORIZED, UNAUTHORIZED, UNAUTHORIZED)),
    "with the password": (
        Caller(None, password=PASSWORD),
        (None, None, UNAUTHORIZED, UNAUTHORIZED),
    ),
    "with a wrong password": (
        Caller(None, password="wrong"),
        (None, UNAUTHORIZED, UNAUTHORIZED, UNAUTHORIZED),
    ),
    "with the view of another share": (
        Caller(None, views=frozenset({View("another", "0" * 16, 0)})),
        (None, UNAUTHORIZED, UNAUTHORIZED, UNAUTHORIZED),
    ),
    "another owner": (Caller("bob", frozenset({Scope.CREATE})), (None, FORBIDDEN, FORBIDDEN, FORBIDDEN)),
    "another owner with the password": (
        Caller("bob", frozenset({Scope.CREATE}), password=PASSWORD),
        (None, None, FORBIDDEN, FORBIDDEN),
    ),
    "another owner with a wrong password": (
        Caller("bob", frozenset({Scope.CREATE}), password="wrong"),
        (None, UNAUTHORIZED, FORBIDDEN, FORBIDDEN),
    ),
    "with the scope read": (Caller("carol", frozenset({Scope.READ})), (None,) * 4),
    "owner": (Caller("alice", frozenset({Scope.CREATE})), (None,) * 4),
    "owner, with a wrong password": (
        Caller("alice", frozenset({Scope.CREATE}), password="wrong"),
        (None,) * 4,
    ),
    "admin": (Caller("admin", frozenset({Scope.ADMIN})), (None,) * 4),
}


@pytest.mark.parametrize("kind", SHARES)
@pytest.mark.parametrize("name", CALLERS)
async def test_every_way_to_read_is_open_to_the_same_callers(service, alice, name, kind):
    share = (await service.create(alice, SESSION, [part("a")], SHARES[kind])).id
    caller, expected = CALLERS[name]
    outcomes = {
        await outcome(service.agent_session(caller, share)),
        await outcome(service.sync_data(caller, share)),
        await outcome(service.metadata(caller, share)),
        await outcome(service.subscribe(caller, share)),
    }
    assert outcomes == {expected[list(SHARES).index(kind)]}


@pytest.mark.parametrize("kind", SHARES)
async def test_to_write_takes_the_secret_or_the_owner_whatever_the_visibility(
    service, alice, bob, admin, anonymous, kind
):
    share = await service.create(alice, SESSION, [part("a")], SHARES[kind])
    reader = Caller("carol", frozenset({Scope.READ}))
    for act in (
        lambda *who: service.sync(*who, []),
        service.update,
        service.create_view_token,
        service.check_write,
    ):
        for caller in (anonymous, bob, reader):
            assert await outcome(act(caller, share.id, None)) is FORBIDDEN
            assert await outcome(act(caller, share.id, "wrong")) is ErrorCode.INVALID_SECRET
            assert await outcome(act(caller, share.id, share.secret)) is None
        assert await outcome(act(alice, share.id, None)) is None
        assert await outcome(act(admin, share.id, None)) is None


@pytest.mark.parametrize("visibility", ["link", "private"])
async def test_a_reader_learns_nothing_of_a_share_that_is_refused(service, alice, bob, visibility):
    options = {"visibility": visibility, "password": PASSWORD}
    share = (await service.create(alice, SESSION, [part("a")], options)).id
    what = "has a password" if visibility == "link" else "is private"
    assert await refused(service.metadata(ANONYMOUS, share)) == (
        UNAUTHORIZED,
        f"Unauthorized: this share {what}",
    )
    assert await refused(service.metadata(bob, share)) == (FORBIDDEN, f"Forbidden: this share {what}")


# Settings


async def test_a_share_is_open_to_all_unless_said_otherwise(service, alice):
    share = await service.create(alice, SESSION)
    settings = await service.update(alice, share.id, None)
    assert msgspec.to_builtins(settings) == {
        "visibility": "link",
        "hasPassword": False,
        "expiresAt": None,
    }


async def test_a_change_is_told_and_kept_over_a_restart(new_service, alice):
    share = await new_service().create(alice, SESSION, [part("a")])
    changed = await new_service().update(
        alice, share.id, None, {"visibility": "private", "password": PASSWORD, "expiresIn": "1h"}
    )
    assert (changed.visibility, changed.has_password) == ("private", True)
    assert changed.expires_at is not None
    after = new_service()
    assert await after.update(alice, share.id, share.secret) == changed
    assert await outcome(after.metadata(ANONYMOUS, share.id)) is UNAUTHORIZED


async def test_none_takes_a_password_and_an_expiry_away(service, alice):
    share = await service.create(alice, SESSION, None, {"password": PASSWORD, "expiresIn": 60})
    settings = await service.update(alice, share.id, None, {"password": None, "expiresIn": None})
    assert (settings.has_password, settings.expires_at) == (False, None)
    assert await outcome(service.metadata(ANONYMOUS, share.id)) is None


async def test_creating_again_changes_what_is_given_and_nothing_else(service, alice):
    first = await service.create(alice, SESSION, [part("a")], {"visibility": "private", "password": "one"})
    assert await service.create(alice, SESSION) == first
    assert await service.create(alice, SESSION, [part("b")], {"visibility": "link"}) == first
    assert await outcome(service.metadata(ANONYMOUS, first.id)) is UNAUTHORIZED
    merged = json.loads(await service.agent_session(Caller(None, password="one"), first.id))
    assert [each["id"] for each in merged["parts"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "options: must be an object"),
        ({"visible": True}, "visible: there is no such option; there are visibility, expiresIn, password"),
        ({"visibility": "public"}, "visibility: must be one of link, private, organization"),
        ({"visibility": None}, "visibility: must be one of link, private, organization"),
        ({"visibility": ["link"]}, "visibility: must be one of link, private, organization"),
        ({"expiresIn": 0}, "expiresIn: must be longer than nothing and at most two hundred years"),
        ({"expiresIn": "soon"}, "expiresIn: must be a duration such as 30d, 12h, 90m, 45s or 2w"),
        ({"expiresIn": True}, "expiresIn: must be a number of seconds or a duration such as 30d"),
        ({"password": ""}, "password: must be a string of 1 to 256 characters"),
        ({"password": "x" * 257}, "password: must be a string of 1 to 256 characters"),
        ({"password": 1234}, "password: must be a string of 1 to 256 characters"),
    ],
)
async def test_options_that_make_no_sense_are_refused_and_change_nothing(service, alice, options, message):
    share = await service.create(alice, SESSION)
    before = await service.update(alice, share.id, None)
    for call in (
        service.update(alice, share.id, None, options),
        service.create(alice, "ses_another_00000002", None, options),
    ):
        assert await refused(call) == (ErrorCode.INVALID_ARGUMENT, message)
    assert await service.update(alice, share.id, None) == before
    assert (await service.list_own(alice)).count == 1


async def test_two_changes_at_once_both_take_place(new_service, alice):
    nodes = [new_service(shared_store=True) for _ in range(2)]
    share = await nodes[0].create(alice, SESSION)
    await nodes[1].update(alice, share.id, None)
    await asyncio.gather(
        nodes[0].update(alice, share.id, None, {"visibility": "private"}),
        nodes[1].update(alice, share.id, None, {"expiresIn": "1d"}),
    )
    for node in nodes:
        settings = await node.update(alice, share.id, None)
        assert settings.visibility == "private"
        assert settings.expires_at is not None


async def test_creating_again_undoes_what_another_node_has_changed_meanwhile(new_service, alice):
    node, other = (new_service(hearing=LocalBroadcaster(), shared_store=True) for _ in range(2))
    options = {"visibility": "private"}
    share = await node.create(alice, SESSION, None, options)
    await other.update(alice, share.id, None, {"visibility": "link"})
    await node.create(alice, SESSION, None, options)
    assert await outcome(other.metadata(ANONYMOUS, share.id)) is UNAUTHORIZED


@pytest.mark.parametrize("seed", range(10))
async def test_a_change_at_the_time_of_a_deletion_does_not_bring_the_share_back(
    new_service, store, alice, seed
):
    node, other = (
        new_service(YieldingStore(store, seed=2 * seed + n), LocalBroadcaster(), shared_store=True)
        for n in range(2)
    )
    share = (await node.create(alice, SESSION, [part("a", text="the content")])).id
    await other.metadata(alice, share)

    async def change():
        for n in range(5):
            await outcome(other.update(alice, share, None, {"visibility": ("private", "link")[n % 2]}))

    await asyncio.gather(node.delete(alice, share, None), change())
    for one in (node, other, new_service()):
        assert await outcome(one.metadata(alice, share)) is ErrorCode.SHARE_NOT_FOUND
    assert not any(b"the content" in body for body in contents(store).values())


# Passwords


async def test_a_password_is_kept_as_a_hash_alone(service, store, alice):
    share = await service.create(alice, SESSION, None, {"password": PASSWORD})
    await service.agent_session(Caller(None, password=PASSWORD), share.id)
    assert not any(PASSWORD.encode() in body for body in contents(store).values())
    assert PASSWORD not in repr(Caller(None, password=PASSWORD))


async def test_a_password_may_be_typed_with_any_keyboard(service, alice):
    share = await service.create(alice, SESSION, None, {"password": "caf\u00e9"})
    assert await outcome(service.metadata(Caller(None, password="cafe\u0301"), share.id)) is None


async def test_the_old_password_opens_nothing_once_it_is_changed(service, alice):
    share = (await service.create(alice, SESSION, None, {"password": "old"})).id
    assert await outcome(service.metadata(Caller(None, password="old"), share)) is None
    await service.update(alice, share, None, {"password": "new"})
    assert await outcome(service.metadata(Caller(None, password="old"), share)) is UNAUTHORIZED
    assert await outcome(service.metadata(Caller(None, password="new"), share)) is None


async def test_wrong_passwords_and_secrets_count_against_who_guesses(new_service, alice):
    service = new_service(limits=CallerLimits(failed_authentications=4))
    share = await service.create(alice, SESSION, None, {"password": PASSWORD})
    guest = Caller(None, address="192.0.2.1", password="wrong")
    right = Caller(None, address="192.0.2.1", password=PASSWORD)
    await outcome(service.agent_session(guest, share.id))
    await outcome(service.unlock(guest, share.id, "wrong too"))
    await outcome(service.sync(guest, share.id, "wrong", []))
    assert await outcome(service.delete(guest, share.id, "wrong too")) is ErrorCode.INVALID_SECRET
    # From there on nothing is compared: right and wrong look alike.
    for call in (
        service.agent_session(right, share.id),
        service.unlock(guest, share.id, PASSWORD),
        service.sync(guest, share.id, share.secret, []),
    ):
        assert await outcome(call) is ErrorCode.RATE_LIMITED
    # Who shows nothing, is known, or comes from elsewhere goes on.
    assert await outcome(service.agent_session(Caller(None, address="192.0.2.1"), share.id)) is UNAUTHORIZED
    assert await outcome(service.agent_session(alice, share.id)) is None
    assert await outcome(service.unlock(Caller(None, address="198.51.100.7"), share.id, PASSWORD)) is None


async def test_a_password_that_was_right_goes_on_beside_somebody_who_guesses(new_service, alice):
    service = new_service(limits=CallerLimits(failed_authentications=1))
    share = await service.create(alice, SESSION, None, {"password": PASSWORD})
    reader = Caller(None, address="192.0.2.1", password=PASSWORD)
    assert await outcome(service.agent_session(reader, share.id)) is None
    await outcome(service.unlock(reader, share.id, "wrong"))
    assert await outcome(service.unlock(reader, share.id, "wrong too")) is ErrorCode.RATE_LIMITED
    assert await outcome(service.agent_session(reader, share.id)) is None


async def test_a_password_that_nothing_depended_on_was_not_right(new_service, alice):
    service = new_service(limits=CallerLimits(failed_authentications=1))
    share = await service.create(alice, SESSION)
    guesser = Caller(None, address="192.0.2.1", password="guess")
    assert await outcome(service.agent_session(guesser, share.id)) is None
    await service.update(alice, share.id, None, {"password": PASSWORD})
    await outcome(service.unlock(guesser, share.id, "wrong"))
    assert await outcome(service.agent_session(guesser, share.id)) is ErrorCode.RATE_LIMITED


@pytest.mark.slow
async def test_who_sets_many_passwords_holds_up_no_reader(service, alice, bob):
    share = await service.create(alice, SESSION, None, {"password": PASSWORD})
    other = await service.create(bob, "ses_another_00000002")
    changes = [
        asyncio.create_task(outcome(service.update(bob, other.id, None, {"password": f"p{n}"})))
        for n in range(20)
    ]
    await asyncio.sleep(0)
    readers = [Caller(None, address="192.0.2.1", password=f"wrong {n}") for n in range(3)]
    seen = await asyncio.gather(*(outcome(service.metadata(reader, share.id)) for reader in readers))
    assert seen == [UNAUTHORIZED] * 3
    assert ErrorCode.RATE_LIMITED in await asyncio.gather(*changes)


# View tokens


@pytest.mark.parametrize("options", [{"visibility": "private"}, {"password": PASSWORD}])
async def test_a_view_token_reads_its_share_and_no_other(service, alice, bearer, options):
    share = await service.create(alice, SESSION, [part("a")], options)
    other = await service.create(alice, "ses_another_00000002", [part("b")], options)
    guest = await bearer(await service.create_view_token(alice, share.id, None))
    assert not guest.is_anonymous
    assert (await service.metadata(guest, share.id)).part_count == 1
    assert await outcome(service.metadata(guest, other.id)) is UNAUTHORIZED
    assert await outcome(service.sync(guest, share.id, None, [])) is FORBIDDEN
    assert await outcome(service.create(guest, "ses_of_a_guest_00000003")) is UNAUTHORIZED


async def test_whoever_knows_the_password_gets_a_view_token(service, alice, bearer):
    share = (await service.create(alice, SESSION, [part("a")], {"password": PASSWORD})).id
    guest = await bearer(await service.unlock(ANONYMOUS, share, PASSWORD))
    assert await outcome(service.metadata(guest, share)) is None
    assert await refused(service.unlock(ANONYMOUS, share, "wrong")) == (
        UNAUTHORIZED,
        "Unauthorized: the password is wrong",
    )


async def test_there_is_nothing_to_unlock_without_a_password_or_in_private(service, alice, bob):
    share = (await service.create(alice, SESSION)).id
    assert await refused(service.unlock(ANONYMOUS, share, PASSWORD)) == (
        FORBIDDEN,
        "Forbidden: this share has no password",
    )
    await service.update(alice, share, None, {"visibility": "private", "password": PASSWORD})
    assert await outcome(service.unlock(ANONYMOUS, share, PASSWORD)) is UNAUTHORIZED
    assert await outcome(service.unlock(bob, share, PASSWORD)) is FORBIDDEN


@pytest.mark.parametrize(
    ("change", "still_opens"),
    [
        ({"visibility": "link"}, False),
        ({"password": "another"}, False),
        ({"password": None}, False),
        ({"visibility": "private"}, True),
        ({"password": PASSWORD}, True),
        ({"expiresIn": "1d"}, True),
        ({}, True),
    ],
)
async def test_a_view_token_ends_when_who_may_read_changes(service, alice, bearer, change, still_opens):
    options = {"visibility": "private", "password": PASSWORD}
    share = (await service.create(alice, SESSION, None, options)).id
    guest = await bearer(await service.create_view_token(alice, share, None))
    await service.update(alice, share, None, change)
    assert (await outcome(service.metadata(guest, share)) is None) is still_opens


async def test_a_view_token_does_not_open_a_share_made_anew(service, alice, bearer):
    options = {"visibility": "private"}
    share = (await service.create(alice, SESSION, None, options)).id
    guest = await bearer(await service.create_view_token(alice, share, None))
    await service.delete(alice, share, None)
    assert (await service.create(alice, SESSION, None, options)).id == share
    assert await outcome(service.metadata(guest, share)) is UNAUTHORIZED


async def test_a_view_token_lasts_7_days_or_as_long_as_is_said_but_no_longer_than_its_share(
    new_service, alice
):
    now = 1_700_000_000_000
    service = new_service(clock=lambda: now)
    share = (await service.create(alice, SESSION)).id
    assert (await service.create_view_token(alice, share, None)).expires_at == now + 7 * 86_400_000
    assert (await service.create_view_token(alice, share, None, "90m")).expires_at == now + 90 * 60_000
    await service.update(alice, share, None, {"expiresIn": 60})
    assert (await service.create_view_token(alice, share, None, "90m")).expires_at == now + 60_000
    assert (await refused(service.create_view_token(alice, share, None, "ever")))[1].startswith("expiresIn: ")


# Live


async def test_who_may_not_read_any_more_is_told_so_and_gets_no_more_events(service, alice, bob, anonymous):
    share = (await service.create(alice, SESSION)).id
    readers = {caller: await service.subscribe(caller, share, 0) for caller in (anonymous, bob, alice)}
    await service.sync(alice, share, None, [part("seen by nobody else")])
    await service.update(alice, share, None, {"visibility": "private"})
    for caller, code in ((anonymous, UNAUTHORIZED), (bob, FORBIDDEN)):
        assert (await refused(anext(readers[caller])))[0] is code
        with pytest.raises(StopAsyncIteration):
            await anext(readers[caller])
    assert (await anext(readers[alice])).sync_count == 1


async def test_a_reader_with_a_right_of_its_own_notices_no_change(service, alice):
    share = (await service.create(alice, SESSION)).id
    reader = await service.subscribe(Caller("carol", frozenset({Scope.READ})), share, 0)
    await service.update(alice, share, None, {"visibility": "private"})
    await service.sync(alice, share, None, [part("a")])
    assert (await anext(reader)).sync_count == 1


async def test_a_reader_by_password_goes_on_when_none_is_needed_any_more(service, alice):
    share = (await service.create(alice, SESSION, None, {"password": PASSWORD})).id
    reader = await service.subscribe(Caller(None, password=PASSWORD), share, 0)
    await service.update(alice, share, None, {"password": None})
    await service.sync(alice, share, None, [part("a")])
    assert (await anext(reader)).sync_count == 1


async def test_subscribers_on_another_node_are_told_as_well(new_service, alice, anonymous):
    node, other = (
        new_service(hearing=LocalBroadcaster(), shared_store=True, clock=wall_clock) for _ in range(2)
    )
    share = (await node.create(alice, SESSION)).id
    subscription = await other.subscribe(anonymous, share, 0)
    await node.update(alice, share, None, {"visibility": "private"})
    assert await outcome(other.metadata(anonymous, share)) is UNAUTHORIZED
    async with asyncio.timeout(5):
        assert (await refused(anext(subscription)))[0] is UNAUTHORIZED


async def test_a_subscription_ends_with_the_credential_it_was_made_with(service, alice, bearer):
    share = (await service.create(alice, SESSION, None, {"visibility": "private"})).id
    guest = await bearer(await service.create_view_token(alice, share, None, 0.3))
    subscription = await service.subscribe(guest, share, 0)
    async with asyncio.timeout(5):
        assert (await refused(anext(subscription)))[0] is UNAUTHORIZED


async def test_every_node_honours_a_change_at_once(new_service, alice, anonymous):
    node, other = (
        new_service(hearing=LocalBroadcaster(), shared_store=True, clock=wall_clock) for _ in range(2)
    )
    share = (await node.create(alice, SESSION)).id
    assert await outcome(other.metadata(anonymous, share)) is None
    await node.update(alice, share, None, {"visibility": "private"})
    assert await outcome(other.metadata(anonymous, share)) is UNAUTHORIZED
    await other.update(alice, share, None, {"visibility": "link"})
    assert await outcome(node.metadata(anonymous, share)) is None
