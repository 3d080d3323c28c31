"""From a request of the HTTP API to its caller, if it may be made from where it was made."""

from __future__ import annotations

from rpcshare.auth.authenticator import Authenticator, shows_credential
from rpcshare.auth.caller import Caller
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.request_head import RequestHead

__all__ = ["READS", "admit"]

READS = ("GET", "HEAD")


async def admit(
    head: RequestHead, method: str, authenticator: Authenticator, origins: OriginPolicy
) -> Caller:
    """Return the caller of a request.

    A page of any origin may read what anybody may. One that changes something, or that is somebody, has to
    come from an origin that may call.

    Raises:
        ShareError: FORBIDDEN, for its origin; UNAUTHORIZED, for its credential.
    """
    if method not in READS or shows_credential(head) or head.header("cookie"):
        origins.check(head)
    caller = await authenticator.caller(head)
    if not caller.is_anonymous:
        origins.check(head)
    return caller
