"""Signed tokens: what an issuer's keys have signed for this server is believed, and nothing else."""

import asyncio
import json
import time

import pytest

from rpcshare.auth.caller import Caller, Scope
from rpcshare.auth.credential import MAX_CREDENTIAL_LENGTH, Credential, CredentialKind
from rpcshare.auth.jwks import FixedKeys
from rpcshare.auth.signed_tokens import SignedTokenVerifier, TokenIssuer
from rpcshare.auth.token_keys import keys_of_document, keys_of_jwks, secret_key
from rpcshare.errors import ErrorCode, ShareError
from support.narrowing import not_none
from support.token_issuer import AUDIENCE, ISSUER, base64url, claims, jwk, make_key, pem, token

ALGORITHMS = ["EdDSA", "Ed25519", "ES256", "RS256"]
KEYS = {algorithm: make_key(algorithm) for algorithm in ALGORITHMS}
STRANGER = make_key("EdDSA")
SECRET = "a secret that two servers share, 32 bytes or more"


def verifier(*keys, **issuer) -> SignedTokenVerifier:
    settings = {"name": ISSUER, "audience": AUDIENCE, "keys": FixedKeys(keys), **issuer}
    return SignedTokenVerifier([TokenIssuer(**settings)])


@pytest.fixture(scope="module")
def everybody() -> SignedTokenVerifier:
    """Knows a key of each type, by its id."""
    return verifier(*keys_of_jwks({"keys": [jwk(key, name) for name, key in KEYS.items()]}))


async def caller(verifier: SignedTokenVerifier, text: str) -> Caller | None:
    return await verifier.verify(Credential(CredentialKind.TOKEN, text))


async def refusal(verifier: SignedTokenVerifier, text: str) -> str:
    with pytest.raises(ShareError) as caught:
        await caller(verifier, text)
    assert caught.value.code is ErrorCode.UNAUTHORIZED
    return caught.value.message


def good(payload=None, **header) -> str:
    return token(KEYS["EdDSA"], "EdDSA", payload, **{"kid": "EdDSA", **header})


# What is believed


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_stands_for_its_subject_with_its_scopes(everybody, algorithm):
    found = not_none(await caller(everybody, token(KEYS[algorithm], algorithm, kid=algorithm)))
    assert (found.subject, found.scopes) == ("alice", {Scope.CREATE})


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
async def test_a_key_in_pem_has_no_id_and_verifies_tokens_with_any_or_none(algorithm):
    knows_pem = verifier(*keys_of_document(pem(KEYS[algorithm])))
    for key_id in (None, "some-id"):
        assert await caller(knows_pem, token(KEYS[algorithm], algorithm, kid=key_id))


async def test_a_token_without_a_key_id_is_verified_with_each_key_of_its_type():
    keys = [make_key("ES256") for _ in range(3)]
    knows_three = verifier(*keys_of_jwks({"keys": [jwk(key, str(n)) for n, key in enumerate(keys)]}))
    assert await caller(knows_three, token(keys[2], "ES256"))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_shared_secret_verifies_hmacs(algorithm):
    assert await caller(verifier(secret_key(SECRET)), token(SECRET.encode(), algorithm))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
async def test_a_token_may_say_that_it_is_one(everybody, kind):
    assert await caller(everybody, good(typ=kind))


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("create read", {Scope.CREATE, Scope.READ}),
        (["create", "admin"], {Scope.CREATE, Scope.ADMIN}),
        ("openid profile read", {Scope.READ}),
        ("", set()),
        (None, set()),
        (7, set()),
        (["read", 7, ["admin"]], {Scope.READ}),
        ("ADMIN", set()),
    ],
)
async def test_scopes_that_are_known_here_count(everybody, scope, scopes):
    assert not_none(await caller(everybody, good(claims(scope=scope)))).scopes == scopes


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE]])
async def test_a_token_may_be_for_several(everybody, audience):
    assert await caller(everybody, good(claims(aud=audience)))


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_an_issuer_s_clock_may_be_half_a_minute_ahead(everybody, claim):
    assert await caller(everybody, good(claims(**{claim: time.time() + 30})))


async def test_what_a_token_opens_ends_when_it_expires(everybody):
    found = not_none(await caller(everybody, good(claims(exp=time.time() + 0.2))))
    assert not found.has_lost_standing
    ended = asyncio.Event()
    not_none(found.standing).on_end(ended.set)
    await asyncio.wait_for(ended.wait(), 5)
    assert found.has_lost_standing


# Roles


@pytest.mark.parametrize(
    ("claim", "roles"),
    [
        ("roles", {"roles": ["editor", "nobody"]}),
        ("roles", {"roles": "editor"}),
        ("realm_access.roles", {"realm_access": {"roles": ["editor"]}}),
        ("https://id.example/roles", {"https://id.example/roles": ["editor"]}),
    ],
)
async def test_roles_are_mapped_to_scopes_beside_those_of_the_token(claim, roles):
    maps_roles = verifier(
        *keys_of_document(pem(KEYS["EdDSA"])),
        role_claim=claim,
        role_scopes={"editor": frozenset({Scope.READ}), "boss": frozenset({Scope.ADMIN})},
    )
    assert not_none(await caller(maps_roles, good(claims(**roles)))).scopes == {Scope.CREATE, Scope.READ}


@pytest.mark.parametrize(
    ("mapped", "claimed", "scopes"),
    [
        (True, {"scope": "create admin"}, {Scope.CREATE}),
        (True, {"scope": ["admin", "create"]}, {Scope.CREATE}),
        (True, {"scope": "create admin", "roles": ["editor"]}, {Scope.CREATE, Scope.READ}),
        (True, {"scope": "create", "roles": ["boss"]}, {Scope.CREATE, Scope.ADMIN}),
        # Who maps no roles leaves it to the issuer.
        (False, {"scope": "create admin"}, {Scope.CREATE, Scope.ADMIN}),
    ],
)
async def test_where_roles_are_mapped_only_a_role_makes_an_admin(mapped, claimed, scopes):
    roles = {"editor": frozenset({Scope.READ}), "boss": frozenset({Scope.ADMIN})}
    settings = {"role_claim": "roles", "role_scopes": roles} if mapped else {}
    maps_roles = verifier(*keys_of_document(pem(KEYS["EdDSA"])), **settings)
    assert not_none(await caller(maps_roles, good(claims(**claimed)))).scopes == scopes


@pytest.mark.parametrize("roles", [None, 7, {"editor": True}, [["editor"]], "editor boss", ["Editor"]])
async def test_what_is_no_known_role_gives_nothing(roles):
    maps_roles = verifier(
        *keys_of_document(pem(KEYS["EdDSA"])),
        role_claim="roles",
        role_scopes={"editor": frozenset({Scope.READ})},
    )
    assert not_none(await caller(maps_roles, good(claims(roles=roles)))).scopes == {Scope.CREATE}


# What its issuer has signed, and is not valid here and now


NOT_VALID = {
    "another audience": (claims(aud="https://other.example"), "is for another audience"),
    "an audience that only begins like this": (claims(aud=AUDIENCE + "/"), "is for another audience"),
    "a list without this": (claims(aud=["other"]), "is for another audience"),
    "no audience": (claims(aud=None), "is for another audience"),
    "expired": (claims(exp=time.time() - 1), "has expired"),
    "no expiry": (claims(exp=None), "has no time of expiry"),
    "expiry as text": (claims(exp="4102444800"), "has a claim exp that is no time"),
    "expiry as a truth": (claims(exp=True), "has a claim exp that is no time"),
    "expiry beyond time": (claims(exp=1e300), "has a claim exp that is no time"),
    "not yet valid": (claims(nbf=time.time() + 600), "is not valid yet"),
    "from the future": (claims(iat=time.time() + 600), "is not valid yet"),
    "no subject": (claims(sub=None), "has no subject that can be used here"),
    "an empty subject": (claims(sub=""), "has no subject that can be used here"),
    "a long subject": (claims(sub="x" * 257), "has no subject that can be used here"),
    "an unprintable subject": (claims(sub="a\nb"), "has no subject that can be used here"),
    "half of a surrogate pair": (claims(sub="\ud83d"), "has no subject that can be used here"),
    "a subject that is no text": (claims(sub=7), "has no subject that can be used here"),
    "the admin's name": (claims(sub="admin"), "has no subject that can be used here"),
}


@pytest.mark.parametrize(("payload", "why"), NOT_VALID.values(), ids=NOT_VALID.keys())
async def test_a_token_that_is_not_valid_is_refused_and_told_why(everybody, payload, why):
    assert await refusal(everybody, good(payload)) == f"Unauthorized: the token {why}"


async def test_an_admin_s_token_may_have_the_admin_s_name(everybody):
    found = not_none(await caller(everybody, good(claims(sub="admin", scope="admin"))))
    assert found.has(Scope.ADMIN)


# What its issuer has not signed


def tampered(text: str, part: int, change) -> str:
    parts = text.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def public_key_as_secret(document: bytes) -> str:
    return token(document, "HS256", kid="RS256")


FORGED = {
    "none": token(None, "none"),
    "none with the id of a key": token(None, "none", kid="EdDSA"),
    "None": token(None, "None", kid="EdDSA"),
    "none with a signature": good(alg="none"),
    "the public key in PEM as the secret of an HMAC": public_key_as_secret(pem(KEYS["RS256"])),
    "the same without the line's end": public_key_as_secret(pem(KEYS["RS256"]).strip()),
    "an HMAC with an empty secret": token(b"", "HS256"),
    "another key under the id of this": token(make_key("EdDSA"), "EdDSA", kid="EdDSA"),
    "a key of one's own in the header": token(
        STRANGER, "EdDSA", kid="stranger", jwk=jwk(STRANGER, "stranger"), jku="https://other.example/jwks"
    ),
    "an id that no key has": good(kid="unknown"),
    "the id of a key of another type": good(kid="RS256"),
    "another algorithm of the same key": token(KEYS["RS256"], "RS512", kid="RS256"),
    "another padding of the same key": token(KEYS["RS256"], "PS256", kid="RS256"),
    "an algorithm that there is not": good(alg="EdDSA2"),
    "an algorithm that is no text": good(alg=["EdDSA"]),
    "no algorithm": good(alg=None),
    "an id that is no text": good(kid=7),
    "another type": good(typ="dpop+jwt"),
    "a type that is no text": good(typ=7),
    "a critical extension": good(crit=["exp"]),
    "an empty list of critical extensions": good(crit=[]),
    "a payload that is not encoded": good(b64=False, crit=["b64"]),
    "another issuer": good(claims(iss="https://other.example")),
    "an issuer with a slash more": good(claims(iss=ISSUER + "/")),
    "no issuer": good(claims(iss=None)),
    "an issuer that is no text": good(claims(iss=[ISSUER])),
    "a payload that was changed": tampered(
        good(), 1, lambda _: base64url(str(claims(scope="admin")).replace("'", '"').encode())
    ),
    "a header that was changed": tampered(
        good(), 0, lambda part: base64url(b'{"alg":"EdDSA","kid":"EdDSA"}')
    ),
    "a signature that was changed": tampered(good(), 2, lambda part: "A" * len(part)),
    "a signature of another length": tampered(good(), 2, lambda part: part[:-4]),
    "a signature that is written otherwise": tampered(
        good(), 2, lambda part: part[:-1] + chr(ord(part[-1]) + 1)
    ),
    "no signature": tampered(good(), 2, lambda _: ""),
    "a payload that is no object": token(KEYS["EdDSA"], "EdDSA", [1], kid="EdDSA"),
    "a header that is no object": tampered(good(), 0, lambda _: base64url(b"[1]")),
    "a header that is no JSON": tampered(good(), 0, lambda _: base64url(b"\xff")),
    "two parts": good().rpartition(".")[0],
    "four parts": good() + ".AAAA",
    "padding": good() + "=",
    "text": "no-token",
}


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED.keys())
async def test_what_its_issuer_has_not_signed_is_unknown(everybody, text):
    assert await caller(everybody, text) is None


@pytest.mark.parametrize("algorithm", ALGORITHMS[2:])
async def test_a_secret_is_used_for_hmacs_alone(algorithm):
    assert await caller(verifier(secret_key(SECRET)), token(KEYS[algorithm], algorithm)) is None


async def test_each_issuer_has_keys_of_its_own():
    issuers = [
        TokenIssuer(name=name, audience=AUDIENCE, keys=FixedKeys(keys_of_document(pem(KEYS[algorithm]))))
        for name, algorithm in [("one", "EdDSA"), ("other", "Ed25519")]
    ]
    both = SignedTokenVerifier(issuers)
    assert await caller(both, token(KEYS["EdDSA"], "EdDSA", claims(iss="one")))
    assert await caller(both, token(KEYS["EdDSA"], "EdDSA", claims(iss="other"))) is None


async def test_an_oversized_token_is_not_even_decoded(everybody):
    text = good(claims(padding="x" * MAX_CREDENTIAL_LENGTH))
    assert await caller(everybody, text) is None
    assert await caller(everybody, good(claims(padding="x" * 5000))) is not None


@pytest.mark.parametrize("kind", [CredentialKind.API_KEY, CredentialKind.PATH_KEY])
async def test_a_token_is_no_key(everybody, kind):
    assert await everybody.verify(Credential(kind, good())) is None


# Keys


def test_keys_for_something_else_are_left_out_of_a_jwks():
    key = make_key("ES256")
    members = [
        jwk(key, "encryption", use="enc"),
        jwk(key, "other algorithm", alg="ES512"),
        jwk(key, "signing", key_ops=["encrypt"]),
        jwk(make_key("ES384"), "other curve"),
        {"kty": "oct", "kid": "secret", "k": base64url(b"x" * 32)},
        {"kty": "RSA", "kid": "short", "n": base64url(b"\xff" * 64), "e": "AQAB"},
        {"kty": "EC", "kid": "incomplete", "crv": "P-256"},
        {"kty": "new"},
        "no key",
        jwk(key, "good", use="sig", alg="ES256", key_ops=["verify"]),
    ]
    assert [found.id for found in keys_of_jwks({"keys": members})] == ["good"]


@pytest.mark.parametrize("value", [None, [], {}, {"keys": {}}, {"keys": [{}] * 101}])
def test_what_is_no_jwks_is_refused(value):
    with pytest.raises(ValueError, match=r"JWKS|more than 100 keys"):
        keys_of_jwks(value)


def test_a_file_may_hold_several_keys():
    content = pem(KEYS["EdDSA"]) + b"\n# the next\n" + pem(KEYS["RS256"])
    assert [sorted(key.algorithms) for key in keys_of_document(content)] == [["Ed25519", "EdDSA"], ["RS256"]]


def test_a_file_may_be_a_jwk_or_a_jwks():
    member = jwk(KEYS["ES256"], "one")
    for value in (member, {"keys": [member]}):
        assert [key.id for key in keys_of_document(json.dumps(value).encode())] == ["one"]


PRIVATE = {
    "pem": KEYS["EdDSA"].as_pem(private=True),
    "jwk": json.dumps(KEYS["ES256"].as_dict(private=True)).encode(),
}


@pytest.mark.parametrize("content", PRIVATE.values(), ids=PRIVATE.keys())
def test_a_file_with_a_private_key_is_refused(content):
    with pytest.raises(ValueError, match="holds a private key: give the public one alone"):
        keys_of_document(content)


UNUSABLE = {
    "neither": b"hello",
    "a broken block": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    "another curve": pem(make_key("ES384")),
    "JSON of something else": b'{"a": 1}',
    "no key at all": b'{"keys": []}',
}


@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_file_without_a_key_that_can_be_used_is_refused(content):
    with pytest.raises(ValueError, match=r"is neither|no public key|must be on|holds no"):
        keys_of_document(content)


def test_a_key_does_not_show_itself():
    assert SECRET not in repr(secret_key(SECRET))
