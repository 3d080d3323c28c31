"""What a provider says of somebody, with what a test does not care about filled in."""

from typing import Any

import msgspec

from rpcshare.auth.caller import Role
from rpcshare.auth.users import SignIn

__all__ = ["who"]

_ALICE = SignIn(
    issuer="https://id.example",
    subject="alice",
    provider="example",
    organization="acme",
    role=None,
    default_role=Role.MEMBER,
    email="alice@acme.example",
    email_is_trusted=True,
    name="Alice",
)


def who(**said: Any) -> SignIn:
    return msgspec.structs.replace(_ALICE, **said)
