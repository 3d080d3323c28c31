"""The admin token's verifier, by itself."""

import pytest

from rpcshare.auth.admin_token import ADMIN, AdminTokenVerifier
from rpcshare.auth.caller import Scope
from rpcshare.auth.credential import Credential, CredentialKind

TOKEN = "correct-horse"


@pytest.mark.parametrize("kind", [CredentialKind.TOKEN, CredentialKind.PATH_KEY])
async def test_the_token_is_the_admin_s(kind):
    assert await AdminTokenVerifier(TOKEN).verify(Credential(kind, TOKEN)) == ADMIN


async def test_the_token_is_no_stored_key():
    verifier = AdminTokenVerifier(TOKEN)
    assert await verifier.verify(Credential(CredentialKind.API_KEY, TOKEN)) is None


@pytest.mark.parametrize(
    "value", ["", "correct-hors", "correct-horse ", "Correct-horse", "n\xe9", "\u2713", "\ud800"]
)
async def test_anything_else_is_nobody_s(value):
    verifier = AdminTokenVerifier(TOKEN)
    assert await verifier.verify(Credential(CredentialKind.TOKEN, value)) is None


@pytest.mark.parametrize("scope", Scope)
def test_the_admin_has_every_scope(scope):
    assert ADMIN.has(scope)


def test_the_verifier_does_not_keep_the_token():
    assert TOKEN not in repr(vars(AdminTokenVerifier(TOKEN)))
