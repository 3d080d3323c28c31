"""What a connection says of its caller, beside credentials."""

import pytest

from rpcshare.auth.admin_token import ADMIN, AdminTokenVerifier
from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import ANONYMOUS, Caller, Scope, View
from rpcshare.auth.credential import Credential
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.auth.request_head import ClientCertificate, RequestHead
from rpcshare.errors import ErrorCode, ShareError
from support.narrowing import not_none

TOKEN = "admin-token"
MACHINE = Caller("machine", frozenset({Scope.CREATE}), standing=CredentialValidity())
USER = Caller("user", frozenset({Scope.CREATE}))
VIEWER = Caller(None, views=frozenset({View("abcdefgh", "1", 0)}), standing=CredentialValidity())
CERTIFICATE = ClientCertificate("machine", 0.0)


class KnowsViewer:
    async def verify(self, credential: Credential) -> Caller | None:
        return VIEWER if credential.value == "rsv_view" else None


class KnowsMachine:
    async def verify(self, head: RequestHead) -> Caller | None:
        return MACHINE if head.peer_certificate is not None else None


class KnowsUser:
    async def verify(self, head: RequestHead) -> Caller | None:
        match head.header("x-user"):
            case ["bad"]:
                raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: bad name")
            case [_]:
                return USER
        return None


AUTHENTICATOR = Authenticator([AdminTokenVerifier(TOKEN), KnowsViewer()], [KnowsUser(), KnowsMachine()])


def head(*, bearer: str = "", user: str = "", certificate: bool = False) -> RequestHead:
    headers = [("authorization", f"Bearer {bearer}")] if bearer else []
    headers += [("x-user", user)] if user else []
    return RequestHead(tuple(headers), peer_certificate=CERTIFICATE if certificate else None)


@pytest.mark.parametrize(
    ("shown", "caller"),
    [
        (head(), ANONYMOUS),
        (head(certificate=True), MACHINE),
        (head(user="user"), USER),
        (head(user="user", certificate=True), USER),
        (head(bearer=TOKEN, user="user", certificate=True), ADMIN),
        # What is not asked cannot refuse.
        (head(bearer=TOKEN, user="bad"), ADMIN),
    ],
)
async def test_a_credential_takes_the_place_of_the_connection_s_identity(shown, caller):
    assert await AUTHENTICATOR.caller(shown) == caller


async def test_a_bad_credential_is_refused_whatever_the_connection_says():
    with pytest.raises(ShareError, match="not valid"):
        await AUTHENTICATOR.caller(head(bearer="wrong", certificate=True))


async def test_an_identity_that_does_not_hold_is_refused():
    with pytest.raises(ShareError, match="bad name"):
        await AUTHENTICATOR.caller(head(user="bad", certificate=True))


async def test_a_credential_that_names_nobody_adds_to_the_connection_s_identity():
    caller = await AUTHENTICATOR.caller(head(bearer="rsv_view", certificate=True))
    assert (caller.subject, caller.views) == ("machine", VIEWER.views)
    not_none(VIEWER.standing).end()
    assert caller.has_lost_standing
