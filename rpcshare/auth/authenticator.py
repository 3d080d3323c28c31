"""From the head of a request to its caller (PROTOCOL.md, "Who is asking").

Nothing else in the server reads a credential from a request. The ways to show one:

- ``Authorization: Bearer TOKEN`` and ``Authorization: ApiKey KEY``
- ``x-opencode-share-key: TOKEN``
- the WebSocket subprotocol ``bearer.<base64url(TOKEN)>``, offered beside the one to be spoken
- the path prefix ``/k/KEY``
- cookies of pages of our own (:mod:`rpcshare.auth.cookies`)

``Authorization: Basic`` is no credential: it carries the password of a share that is to be read.

A request that shows a credential means it. So a bad one is refused, even where none is needed and
even beside a good one, and a request whose credentials stand for different callers is refused too.
A cookie is shown by nobody in particular: one that stands for nobody, or for somebody else than a
credential that is shown, is as if it were not there.

Some requests come with an identity that nobody chose to show: that of the TLS client's certificate, or
the one that a trusted proxy puts into a header. It counts where no credential names the caller.
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.auth.cookies import CookieReader
from rpcshare.auth.credential import (
    Credential,
    CredentialKind,
    CredentialVerifier,
)
from rpcshare.auth.current_request import current_request
from rpcshare.auth.rate_limits import FailureLimit, UncountedRefusalError
from rpcshare.auth.request_head import RequestHead
from rpcshare.auth.request_rates import RequestRates
from rpcshare.auth.subject_sources import SubjectSources
from rpcshare.errors import ErrorCode, ShareError

__all__ = [
    "SUBPROTOCOLS",
    "Authenticator",
    "HeadVerifier",
    "select_subprotocol",
    "shows_credential",
    "split_path_key",
]

SUBPROTOCOLS = ("rpcshare.json", "rpcshare.msgpack")
"""The WebSocket subprotocols that this server speaks."""

_PREFERRED = "rpcshare.msgpack"
_BEARER_SUBPROTOCOL = "bearer."
_PATH_PREFIX = "/k/"

_PASSWORD_SCHEME = "basic"  # noqa: S105 -- a scheme's name
_AUTHORIZATION_SCHEMES = {"bearer": CredentialKind.TOKEN, "apikey": CredentialKind.API_KEY}

# No padding, and no length that base64 cannot have.
_BASE64URL = re.compile(r"(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2,3})?")


class HeadVerifier(Protocol):
    """Knows the callers that one sort of connection stands for, without a credential."""

    async def verify(self, head: RequestHead) -> Caller | None:
        """Return whom ``head`` comes from, or None if it does not tell in this verifier's way.

        Raises:
            ShareError: UNAUTHORIZED, for an identity that does not hold.
        """
        ...


class Authenticator:
    """Tells who a request comes from, by asking ``verifiers``, then ``head_verifiers``, in their order."""

    def __init__(
        self,
        verifiers: Sequence[CredentialVerifier],
        head_verifiers: Sequence[HeadVerifier] = (),
        *,
        failures: FailureLimit | None = None,
        rates: RequestRates | None = None,
        audit: AuditLog | None = None,
        cookies: CookieReader | None = None,
        sources: SubjectSources | None = None,
        is_no_guess: Callable[[Credential], bool] = lambda _credential: False,
    ) -> None:
        """Ask these.

        Args:
            verifiers: know credentials.
            head_verifiers: know connections.
            failures: the limit on them; None: there is none.
            rates: the limits on requests of users and keys, as which each counts; None: there are none.
            audit: is told of who is refused.
            cookies: finds the credentials in them; None: they are not looked at.
            sources: which owners a caller is beside its own; None: no others.
            is_no_guess: whether a credential that no verifier knows cannot be a guess: it is no failure then.
        """
        self._verifiers = tuple(verifiers)
        self._head_verifiers = tuple(head_verifiers)
        self.failures = failures or FailureLimit(0)
        self.rates = rates or RequestRates()
        """Of the requests of users and keys."""
        self._audit = audit or AuditLog()
        self._cookies = cookies
        self._sources = sources or SubjectSources()
        self._is_no_guess = is_no_guess

    async def caller(self, head: RequestHead) -> Caller:
        """Return the caller of a request, with the peer's address.

        A request without a credential is its connection's, and if that stands for nobody either it is
        :data:`~rpcshare.auth.caller.ANONYMOUS`'s.

        Raises:
            ShareError: UNAUTHORIZED, for a credential that is malformed or that no verifier knows,
                or for credentials of different callers; RATE_LIMITED, after too many such failures
                from the same network, or too many requests; and whatever a verifier raises.
        """
        with self._audit.refusals(Action.AUTHENTICATE, Caller(None, address=head.address)):
            # All are read before any is verified: a malformed one costs no verifier any work.
            credentials = dict.fromkeys(_credentials(head))
            caller = _one({await self._verified(credential, head.address) for credential in credentials})
            caller = await self._with_cookies(caller, head)
            if caller.subject is None:
                caller = _one((caller, await self._of_connection(head)))
            aliases = self._sources.aliases(caller)
            if (request := current_request.get()) is not None:
                request.caller = caller
            caller = msgspec.structs.replace(
                caller, address=head.address, password=_password(head), aliases=aliases
            )
        self.count_request(caller)
        return caller

    def count_request(self, caller: Caller) -> None:
        """Count a request of ``caller``, as a call over RPC is one.

        Raises:
            ShareError: RATE_LIMITED.
        """
        with self._audit.refusals(Action.REQUEST, caller):
            self.rates.take(caller)

    async def caller_of_token(self, token: str, *, address: str = "") -> Caller:
        """Return whom ``token`` stands for, when it is shown in-band: ``authenticate(token)``.

        Raises:
            ShareError: as :meth:`caller` does.
        """
        with self._audit.refusals(Action.AUTHENTICATE, Caller(None, address=address)):
            caller = await self._verified(_well_formed(CredentialKind.TOKEN, token), address)
            return msgspec.structs.replace(caller, address=address, aliases=self._sources.aliases(caller))

    async def _verified(self, credential: Credential, address: str) -> Caller:
        with self.failures.attempt(address, f"{credential.kind} {credential.value}"):
            caller = await self._known(credential)
            if caller is None:
                if self._is_no_guess(credential):
                    raise UncountedRefusalError("Unauthorized: the credential is not valid")
                raise _unauthorized("the credential is not valid")
            return caller

    async def _with_cookies(self, caller: Caller, head: RequestHead) -> Caller:
        """Return the caller with what cookies add; one that has ended is nobody's attempt at anything."""
        if self._cookies is None:
            return caller
        for credential in self._cookies.credentials(head):
            try:
                kept = await self._known(credential)
            except ShareError as exc:
                if exc.code is not ErrorCode.UNAUTHORIZED:
                    raise
                continue  # a browser keeps what has expired; nobody shows it on purpose
            if kept is None or kept.has_lost_standing:
                continue
            if kept.subject is None or caller.subject is None:
                caller = _one((caller, kept))
        return caller

    async def _known(self, credential: Credential) -> Caller | None:
        for verifier in self._verifiers:
            caller = await verifier.verify(credential)
            if caller is not None:
                return caller
        return None

    async def _of_connection(self, head: RequestHead) -> Caller:
        for verifier in self._head_verifiers:
            caller = await verifier.verify(head)
            if caller is not None:
                return caller
        return ANONYMOUS


def select_subprotocol(offered: Sequence[str], supported: Sequence[str] = SUBPROTOCOLS) -> str | None:
    """Return the first of the ``offered`` WebSocket subprotocols that is ``supported``, or None.

    MessagePack is selected wherever it is offered and supported: clients offer JSON before it for the sake of
    servers that know neither and select whatever comes first. A subprotocol that carries a token is never
    selected, hence never echoed.
    """
    if _PREFERRED in offered and _PREFERRED in supported:
        return _PREFERRED
    return next((name for name in offered if name in supported), None)


def shows_credential(head: RequestHead) -> bool:
    """Whether a request shows a credential in any of the ways above, good or bad."""
    try:
        return next(_credentials(head), None) is not None
    except ShareError:
        return True  # one that is malformed


def split_path_key(path: str) -> tuple[str | None, str]:
    """Split ``/k/KEY/rest`` into the key and ``/rest``, the path to be routed and to be logged.

    The key is None for a path without the prefix, which is returned as it is. It is empty, which
    no credential is, for a path such as ``/k//rest``. A key with a slash cannot be given this way.

    Slashes between the key and the rest are as good as one: opencode appends ``/api/share`` to its
    base URL, whether or not that ends with one.
    """
    if not path.startswith(_PATH_PREFIX):
        return None, path
    key, _, rest = path.removeprefix(_PATH_PREFIX).partition("/")
    return key, "/" + rest.lstrip("/")


def _one(callers: Iterable[Caller]) -> Caller:
    """Return the caller that all of ``callers`` are, with the views that they have together.

    Raises:
        ShareError: UNAUTHORIZED, for two of different subjects.
    """
    caller = ANONYMOUS
    for shown in callers:
        if caller.subject is not None and shown.subject is not None:
            raise _unauthorized("the credentials of this request stand for different callers")
        named = shown if caller.subject is None else caller
        held = [part.standing for part in (caller, shown) if part.standing is not None]
        standing = held[0] & held[1] if len(held) == 2 else next(iter(held), None)
        caller = msgspec.structs.replace(named, views=caller.views | shown.views, standing=standing)
    return caller


def _credentials(head: RequestHead) -> Iterator[Credential]:
    """Yield what ``head`` shows, well-formed; raise UNAUTHORIZED for what is not."""
    for value in head.header("authorization"):
        scheme, _, token = value.strip().partition(" ")
        if scheme.lower() == _PASSWORD_SCHEME:
            continue
        kind = _AUTHORIZATION_SCHEMES.get(scheme.lower())
        if kind is None:
            raise _unauthorized("the Authorization header must be 'Bearer TOKEN', 'ApiKey KEY' or Basic")
        yield _well_formed(kind, token.strip())
    for value in head.header("x-opencode-share-key"):
        yield _well_formed(CredentialKind.TOKEN, value.strip())
    if head.is_websocket:
        for name in head.subprotocols:
            if name.startswith(_BEARER_SUBPROTOCOL):
                token = _decode_base64url(name.removeprefix(_BEARER_SUBPROTOCOL))
                yield _well_formed(CredentialKind.TOKEN, token)
    key, _ = split_path_key(head.path)
    if key is not None:
        yield _well_formed(CredentialKind.PATH_KEY, key)


def _password(head: RequestHead) -> str | None:
    """Return the password of a share that ``head`` shows, under whatever user name (RFC 7617).

    Raises:
        ShareError: UNAUTHORIZED: it is malformed, or there are several.
    """
    passwords = set()
    for value in head.header("authorization"):
        scheme, _, encoded = value.strip().partition(" ")
        if scheme.lower() == _PASSWORD_SCHEME:
            try:
                _, password = base64.b64decode(encoded.strip(), validate=True).decode().split(":", 1)
            except ValueError:
                raise _unauthorized("the Basic credentials are malformed") from None
            passwords.add(password)
    if len(passwords) > 1:
        raise _unauthorized("this request shows several passwords")
    return next(iter(passwords), None)


def _well_formed(kind: CredentialKind, value: str) -> Credential:
    credential = Credential(kind, value)
    if not credential.is_well_formed:
        raise _unauthorized("the credential is malformed")
    return credential


def _decode_base64url(text: str) -> str:
    if not _BASE64URL.fullmatch(text):
        raise _unauthorized("the bearer subprotocol must be base64url without padding")
    # Latin-1 has a character for every byte: which of them a credential may have is decided once.
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("latin-1")


def _unauthorized(reason: str) -> ShareError:
    return ShareError(ErrorCode.UNAUTHORIZED, f"Unauthorized: {reason}")
