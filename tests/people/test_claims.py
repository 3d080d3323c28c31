"""What the settings make of what real providers say of a user."""

import pytest

from rpcshare.auth.caller import Role
from rpcshare.auth.oidc import _merged
from rpcshare.auth.provider_errors import SignInError
from rpcshare.auth.sign_in import who_signs_in
from rpcshare.auth.sign_in_providers import Provider, parse_providers

ALICE = {"sub": "1", "email": "Alice@Acme.example", "email_verified": True, "name": "Alice"}


def provider(name: str = "acme", **table: object) -> Provider:
    given = {"client_id": "x", **({} if name in ("github", "google") else {"issuer": "https://id.example"})}
    (made,) = parse_providers({name: {**given, **table}})
    return made


def test_an_address_is_in_lower_case_and_trusted_only_of_a_trusted_provider():
    assert who_signs_in(provider(), ALICE).email == "alice@acme.example"
    assert not who_signs_in(provider(), ALICE).email_is_trusted
    assert who_signs_in(provider(trusted=True), ALICE).email_is_trusted


@pytest.mark.parametrize(
    ("said", "is_verified"),
    [
        ({"email_verified": True}, True),
        ({"email_verified": "true"}, True),  # Amazon Cognito, and others
        ({"email_verified": False}, False),  # Authentik, whoever it is
        ({"email_verified": "false"}, False),
        ({"email_verified": None}, False),
        ({}, False),  # Entra ID, which has a claim of its own:
        ({"xms_edov": True}, True),
        ({"xms_edov": "1"}, True),
        ({"xms_edov": 0}, False),
        ({"email_verified": [True]}, False),
    ],
)
def test_an_address_is_verified_as_the_provider_says(said, is_verified):
    claims = {"sub": "1", "email": "alice@acme.example", **said}
    assert who_signs_in(provider(trusted=True), claims).email_is_trusted == is_verified
    assert who_signs_in(provider(trusted=True, unverified_email=True), claims).email_is_trusted


def test_who_has_no_address_signs_in_all_the_same():
    assert who_signs_in(provider(trusted=True), {"sub": "1"}).email == ""


@pytest.mark.parametrize("email", ["a@b@acme.example", "a b@acme.example", "@acme.example", "alice", 5])
def test_what_is_no_address_is_not_taken_for_one(email):
    with pytest.raises(SignInError):
        who_signs_in(provider(allowed_domains=["acme.example"]), {**ALICE, "email": email, "sub": "2"})


@pytest.mark.parametrize("domain", ["notacme.example", "acme.example.evil.example", "sub.acme.example"])
def test_a_domain_is_the_whole_of_it(domain):
    with pytest.raises(SignInError, match="belongs to no organization that may sign in here"):
        who_signs_in(provider(allowed_domains=["acme.example"]), {**ALICE, "email": f"alice@{domain}"})


def test_at_google_the_organization_counts_and_not_an_address_that_an_account_was_made_with():
    google = provider("google", allowed_domains=["acme.example"])
    with pytest.raises(SignInError):
        who_signs_in(google, ALICE)
    assert who_signs_in(google, {**ALICE, "hd": "acme.example"}).organization == "google"


@pytest.mark.parametrize(
    "groups",
    [["admins"], "admins", ["/admins"], {"admins": {"of": "acme"}}, ["others", "admins"]],
    ids=["list", "one", "Keycloak's path", "Zitadel's object", "several"],
)
def test_groups_are_read_as_providers_write_them(groups):
    made = provider(allowed_groups=["admins"], role_map={"admins": "admin"})
    assert who_signs_in(made, {**ALICE, "groups": groups}).role is Role.ADMIN


@pytest.mark.parametrize("groups", [["admin"], ["Admins"], ["a/admins"], "x admins", None, [["admins"]], 5])
def test_other_groups_are_others(groups):
    with pytest.raises(SignInError, match="is in no group that may sign in here"):
        who_signs_in(provider(allowed_groups=["admins"]), {**ALICE, "groups": groups})


def test_the_log_says_why_groups_are_missing():
    made = provider(allowed_groups=["admins"])
    with pytest.raises(SignInError) as missing:
        who_signs_in(made, ALICE)
    assert missing.value.detail == "the claim groups is missing: have the provider send it"
    with pytest.raises(SignInError) as overage:
        who_signs_in(made, {**ALICE, "_claim_names": {"groups": "src1"}})
    assert "left out, because there are too many" in overage.value.detail


def test_roles_may_be_deep_in_a_claim_and_the_highest_counts():
    made = provider(role_claim="realm_access.roles", role_map={"a": "viewer", "b": "admin", "c": "member"})
    claims = {**ALICE, "realm_access": {"roles": ["a", "b", "c", "offline_access"]}}
    assert who_signs_in(made, claims).role is Role.ADMIN
    assert who_signs_in(made, ALICE).role is None


def test_an_organization_by_a_claim_is_the_providers_own():
    made = provider(organization_claim="tid")
    assert who_signs_in(made, {**ALICE, "tid": "globex"}).organization == "acme/globex"
    for tid in (None, "", ["a", "b"], 5, "a\x1fb"):
        with pytest.raises(SignInError, match="does not say which organization"):
            who_signs_in(made, {**ALICE, "tid": tid})


@pytest.mark.parametrize("name", ["github", "google"])
def test_strangers_with_an_account_anywhere_are_no_organization(name):
    assert who_signs_in(provider(name), ALICE).organization == ""
    assert (
        who_signs_in(provider(name, allowed_groups=["acme"]), {**ALICE, "groups": ["acme"]}).organization
        == name
    )


def test_that_an_address_is_verified_is_said_of_no_other_address():
    other = {"email": "victim@acme.example", "email_verified": True}
    assert _merged({"email": "mallory@evil.example"}, other) == {"email": "mallory@evil.example"}
    assert _merged({"email": "victim@acme.example"}, other)["email_verified"] is True
    assert _merged({"email_verified": True}, {"email": "a@b.example"}) == {"email": "a@b.example"}


@pytest.mark.parametrize(
    "picture", ["javascript:alert(1)", "http://a.example/x", "data:x", "//a", 5, "https://[x"]
)
def test_only_https_is_taken_for_a_picture(picture):
    assert who_signs_in(provider(), {**ALICE, "picture": picture}).avatar_url == ""


def test_a_name_is_one_line():
    assert who_signs_in(provider(), {**ALICE, "name": "A\x1b[31m\nB \u202e C"}).name == "A [31m B C"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"issuer": "ftp://x", "client_id": "x"}, "issuer: must be a URL"),
        ({"issuer": "https://x?y=1", "client_id": "x"}, "issuer: must have no query"),
        ({"client_id": "x"}, "issuer: is missing"),
        ({"issuer": "https://x"}, "missing required field `client_id`"),
        ({"issuer": "https://x", "client_id": "x", "clientsecret": "hush"}, "unknown field `clientsecret`"),
        ({"issuer": "https://x", "client_id": "x", "client_secret": 5}, "client_secret: must be"),
        ({"issuer": "https://x", "client_id": "x", "role_map": {"a": "boss"}}, "Invalid enum value 'boss'"),
        ({"issuer": "https://x", "client_id": "x", "client_secret_file": "/no/such"}, "cannot read /no/such"),
    ],
)
def test_a_table_that_makes_no_provider_is_refused_with_its_name(table, said):
    with pytest.raises(ValueError, match=r"\[oidc\.acme\]: ") as refused:
        parse_providers({"acme": table})
    assert said in str(refused.value)
    assert "hush" not in str(refused.value)


LOOK_ALIKES = {
    "Cyrillic among Latin": "\u0430cme",
    "Greek among Latin": "acm\u03b5",
    "full width": "\uff41\uff43\uff4d\uff45",
    "a ligature": "\ufb01nance",
    "decomposed": "cafe\u0301",
    "a space behind": "acme ",
    "a space before": " acme",
    "no-break space": "ac\u00a0me",
    "zero width": "ac\u200bme",
    "right to left": "\u202eemca",
    "soft hyphen": "ac\u00adme",
    "a mathematical letter": "\U0001d41acme",
}


@pytest.mark.parametrize("value", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_an_organization_that_only_looks_like_another_is_none(value):
    with pytest.raises(SignInError, match="does not say which organization"):
        who_signs_in(provider(organization_claim="tid"), {**ALICE, "tid": value})


@pytest.mark.parametrize(
    "value",
    [
        "acme",
        "Acme",
        "ACME",
        "acme inc",
        "caf\u00e9",
        "\u0430\u043a\u043c\u0435",
        "\u682a\u5f0f\u4f1a\u793eABC",
        "a/b",
    ],
)
def test_names_that_are_spelled_otherwise_are_other_organizations(value):
    assert (
        who_signs_in(provider(organization_claim="tid"), {**ALICE, "tid": value}).organization
        == f"acme/{value}"
    )


def test_what_two_issuers_call_the_same_are_two_organizations():
    claims = {**ALICE, "tid": "acme"}
    found = {
        who_signs_in(provider(name, organization_claim="tid"), claims).organization for name in ("one", "two")
    }
    assert found == {"one/acme", "two/acme"}


def test_no_claim_makes_the_organization_of_a_setting_or_of_one_alone():
    made = provider(organization_claim="tid")
    for value in ("acme", "personal-usr_1", "../acme", "acme/acme"):
        assert who_signs_in(made, {**ALICE, "tid": value}).organization == f"acme/{value}"
