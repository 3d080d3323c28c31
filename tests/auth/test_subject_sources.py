"""A subject and its source are an owner: who else owns what a caller owns."""

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller, Scope
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.jwks import FixedKeys
from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.auth.signed_tokens import SignedTokenVerifier, TokenIssuer
from rpcshare.auth.subject_sources import Source, SubjectSources, jwt_source, owner_name
from rpcshare.auth.token_keys import TokenKey
from rpcshare.auth.unprefixed_owners import UnprefixedOwners, kept_unprefixed_owners
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.storage import MemoryStore
from support.narrowing import not_none
from support.token_issuer import AUDIENCE, ISSUER, claims, make_key, token

IDP = jwt_source(ISSUER)


def caller(source: str, subject: str = "ci") -> Caller:
    return Caller(subject, frozenset({Scope.CREATE}), source=source)


@pytest.mark.parametrize("other", [*Source, IDP, jwt_source("https://other.example")])
@pytest.mark.parametrize("source", [*Source, IDP])
def test_callers_of_one_name_own_the_same_only_if_they_are_of_one_source(source, other):
    assert caller(source).owns(caller(other).owner) == (source == other)


async def test_one_sub_of_two_issuers_is_two_owners():
    key = make_key("EdDSA")
    names = ["https://one.example", "https://two.example"]
    keys = FixedKeys([TokenKey(key, None, ["EdDSA"])])
    verifier = SignedTokenVerifier([TokenIssuer(name=name, audience=AUDIENCE, keys=keys) for name in names])
    callers = []
    for name in names:
        shown = Credential(CredentialKind.TOKEN, token(key, "EdDSA", claims(iss=name)))
        callers.append(not_none(await verifier.verify(shown)))
    assert [each.subject for each in callers] == ["alice", "alice"]
    assert not callers[0].owns(callers[1].owner)


@pytest.mark.parametrize("name", ["key:ci", "key ci", "jwt:https://id.example ci"])
def test_no_subject_can_be_spelled_like_another_source_s_owner(name):
    owners = {owner_name(source, "ci") for source in (*Source, IDP)}
    assert name not in owners
    assert owner_name(Source.KEY, name) not in owners


def test_limits_count_callers_of_one_name_apart():
    limits = CallerLimits(creates=1)
    limits.take_create(caller(Source.KEY))
    limits.take_create(caller(IDP))
    with pytest.raises(ShareError) as refused:
        limits.take_create(caller(IDP))
    assert refused.value.code is ErrorCode.RATE_LIMITED


def test_the_audit_log_names_the_source_beside_the_subject():
    with capture_logs() as lines:
        AuditLog().done(Action.SHARE_CREATE, caller(IDP))
    assert (lines[0]["subject"], lines[0]["source"]) == ("ci", IDP)


# --- united sources -------------------------------------------------------------------------------


def test_united_sources_own_what_either_made():
    sources = SubjectSources([Source.KEY, IDP])
    assert sources.aliases(caller(IDP)) == (caller(Source.KEY).owner,)
    assert sources.aliases(caller(Source.KEY)) == (caller(IDP).owner,)


@pytest.mark.parametrize("source", [Source.PROXY, Source.CERTIFICATE, jwt_source("https://other.example")])
def test_a_source_that_is_not_united_owns_no_more_by_it(source):
    assert SubjectSources([Source.KEY, IDP]).aliases(caller(source)) == ()


# --- owners without a source ----------------------------------------------------------------------


async def decided(*outside: str, keys: Sequence[str] = ()) -> UnprefixedOwners:
    store = MemoryStore()
    for name in keys:
        await ApiKeys(store).create(name)
    return await kept_unprefixed_owners(store, outside)


@pytest.mark.parametrize(
    ("outside", "keys", "source", "owns"),
    [
        ([], [], Source.KEY, True),
        ([], [], Source.TOKEN, True),
        ([], [], IDP, False),
        ([IDP], [], IDP, True),
        ([Source.CERTIFICATE], [], Source.CERTIFICATE, True),
        ([Source.PROXY], [], Source.PROXY, True),
        ([IDP], [], Source.KEY, False),
        ([IDP], ["ci"], IDP, False),
        ([IDP], ["ci"], Source.KEY, True),
        ([IDP], ["other"], IDP, True),
        ([IDP, Source.PROXY], [], IDP, False),
        ([IDP, Source.PROXY], [], Source.PROXY, False),
        ([IDP, Source.PROXY], [], Source.KEY, True),
        ([IDP], [], jwt_source("https://other.example"), False),
    ],
)
async def test_an_owner_without_a_source_is_who_it_must_have_been(outside, keys, source, owns):
    sources = SubjectSources(unprefixed=await decided(*outside, keys=keys))
    assert ("ci" in sources.aliases(caller(source))) == owns


async def test_the_admin_token_keeps_its_shares_from_before():
    sources = SubjectSources(unprefixed=await decided(IDP))
    assert "admin" in sources.aliases(caller(Source.ADMIN, "admin"))


async def test_a_source_that_comes_later_does_not_get_what_was_another_s():
    store = MemoryStore()
    await kept_unprefixed_owners(store, [])
    sources = SubjectSources(unprefixed=await kept_unprefixed_owners(store, [IDP]))
    assert sources.aliases(caller(IDP)) == ()
    assert sources.aliases(caller(Source.KEY)) == ("ci",)


async def test_a_key_that_is_made_later_does_not_get_what_was_another_s():
    store = MemoryStore()
    await kept_unprefixed_owners(store, [IDP])
    await ApiKeys(store).create("ci")
    sources = SubjectSources(unprefixed=await kept_unprefixed_owners(store, [IDP]))
    assert sources.aliases(caller(Source.KEY)) == ()
