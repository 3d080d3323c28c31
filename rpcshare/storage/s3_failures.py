"""What went wrong with a request to S3: in words, and whether it is worth another attempt."""

import re
import ssl
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import aiohttp
import msgspec
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 -- botocore's, which is none of Python's
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from rpcshare.storage.http_connections import (
    CannotConnectError,
    CutShortError,
    NotHTTPError,
    SlowConnectError,
    TooLargeError,
)

__all__ = ["REQUEST_ERRORS", "Failure", "RedirectedError", "check_not_redirected", "failure_of"]


class RedirectedError(BotoCoreError):
    """An answer that the store is somewhere else: a proxy's to another scheme, or a wrong endpoint's."""

    def __init__(self, status: int, location: str | None) -> None:
        super().__init__()
        self.status = status
        self.location = location


def check_not_redirected(status: int, headers: Mapping[str, str]) -> None:
    """Raise RedirectedError if an answer, whose headers have lower-case names, says no more than where to go.

    One that names the region of the bucket is understood by botocore. It would ask a store that names none
    where the bucket is, be redirected again, and so on.
    """
    if status in _REDIRECTIONS and _REGION not in headers:
        raise RedirectedError(status, headers.get("location"))


_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_REGION = "x-amz-bucket-region"

REQUEST_ERRORS = (BotoCoreError, ClientError, ResponseParserError, KeyError, aiohttp.ClientError, OSError)
"""What a request raises that did not succeed. KeyError: its answer lacks what S3 always says, so somebody
else gave it. OSError: among others TimeoutError."""

# S3's "Error responses", and 409 where two conditional writes met: their caller is to try again.
_PASSING_CODES = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottlingException",
        "TooManyRequests",
    }
)
# Of S3, of AWS's token service, and of stores that name it their way.
_NO_CREDENTIALS = "NoCredentials"  # a name of ours: nothing was sent
_WITHOUT_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
_CREDENTIAL_CODES = frozenset(
    {
        _NO_CREDENTIALS,
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
_FORM_STATUSES = frozenset({400, 405, 411, 415, 501})

_SHORTEST_SECRET = 4  # characters; shorter ones are no secrets, and part of many words
_LEFT_OUT = "[…]"
_LONGEST_SAID = 300  # characters
# Signatures, tokens and the like, should a store repeat what it was sent.
_SECRET_LIKE = re.compile(r"[A-Za-z0-9+/=_%-]{32,}|\b[A-Z0-9]{16,}\b")

_TOO_MANY_REQUESTS = 429
_NOT_IMPLEMENTED = 501

# Words for operators, who may not know botocore's names. None of them quotes a request, for that has
# credentials in its headers and users' words in its body.
_TLS_ERRORS = (SSLError, ssl.SSLError)
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (NoCredentialsError, "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    (PartialCredentialsError, "incomplete credentials"),
    (CredentialRetrievalError, "no credentials could be had from where the settings of AWS say"),
    *((kind, "TLS failed: the certificate is not trusted, or this is no TLS port") for kind in _TLS_ERRORS),
    (ConnectTimeoutError, "connecting took too long"),
    (SlowConnectError, "connecting took too long"),
    (ReadTimeoutError, "no answer in time"),
    (EndpointConnectionError, "cannot connect"),
    (CannotConnectError, "cannot connect"),
    (IncompleteReadError, "the answer was cut short"),
    (ResponseStreamingError, "the answer was cut short"),
    (aiohttp.ClientPayloadError, "the answer was cut short"),
    (CutShortError, "the answer was cut short"),
    (NotHTTPError, "the answer is not HTTP"),
    (TooLargeError, "the answer is too large"),
    (ResponseParserError, "the answer is not S3's"),
    (KeyError, "the answer is not S3's"),
    (TimeoutError, "no answer in time"),
    (ConnectionError, "the connection was lost"),
    (HTTPClientError, "the connection was lost"),
    (aiohttp.ClientError, "the connection was lost"),
    (OSError, "the connection was lost"),
)

_ON_THE_WAY = (HTTPClientError, ConnectionError, IncompleteReadError)


class Failure(msgspec.Struct, frozen=True):
    """How one attempt at a request failed."""

    reason: str
    """For people; holds nothing secret."""
    is_passing: bool
    """Another attempt may succeed."""
    is_in_doubt: bool
    """The request may have been carried out all the same."""
    code: str = ""
    """S3's name for it, if it answered."""
    status: int = 0
    """Of the HTTP answer, 0 if there is none."""
    said: str = ""
    """What the store said of it in its own words: one line, for the log of operators, not for callers."""

    @property
    def is_about_credentials(self) -> bool:
        """Whether the credentials that were shown are no good, or no longer."""
        return self.code in _CREDENTIAL_CODES

    @property
    def is_about_form(self) -> bool:
        """Whether the store does not take a request of this kind, or not in this form."""
        return self.status in _FORM_STATUSES and not self.is_about_credentials

    def told(self, secrets: Iterable[str]) -> str:
        """Return all that is known of it, with each of ``secrets`` left out."""
        said = self.said
        for secret in secrets:
            if len(secret) >= _SHORTEST_SECRET:
                said = said.replace(secret, _LEFT_OUT)
        return f"{self.reason}: {said}" if said else self.reason


def failure_of(exc: Exception) -> Failure:
    """Return what ``exc``, one of :data:`REQUEST_ERRORS`, means."""
    if isinstance(exc, ClientError):
        return _answered(exc)
    if isinstance(exc, RedirectedError):
        reason = (
            f"the store is somewhere else (HTTP {exc.status}); set endpoint_url and region to where it is"
        )
        # Of the rest of the address, the key is in the path.
        place = urlsplit(exc.location or "")
        said = _said(f"{place.scheme}://{place.netloc}") if place.netloc else ""
        return Failure(reason, is_passing=False, is_in_doubt=False, status=exc.status, said=said)
    reason = next((reason for kind, reason in _REASONS if isinstance(exc, kind)), type(exc).__name__)
    # Whatever else botocore raises of its own accord is about settings, and was not sent.
    is_passing = isinstance(exc, _ON_THE_WAY) or not isinstance(exc, BotoCoreError)
    is_passing = is_passing and not isinstance(exc, _TLS_ERRORS)
    code = _NO_CREDENTIALS if isinstance(exc, _WITHOUT_CREDENTIALS) else ""
    return Failure(reason, is_passing, is_in_doubt=is_passing, code=code)


def _answered(exc: ClientError) -> Failure:
    code = str(exc.response.get("Error", {}).get("Code", ""))
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    is_fault = status >= 500 and status != _NOT_IMPLEMENTED
    return Failure(
        f"{code} (HTTP {status})" if status else code,
        is_passing=is_fault or status == _TOO_MANY_REQUESTS or code in _PASSING_CODES,
        # One that was slowed down was refused; with any other fault there is no telling.
        is_in_doubt=is_fault and code != "SlowDown",
        code=code,
        status=status,
        said=_said(exc.response.get("Error", {}).get("Message")),
    )


def _said(message: object) -> str:
    """Return what a store says, fit to be logged. It may be anything, and be meant to deceive."""
    if not isinstance(message, str):
        return ""
    line = " ".join("".join(char if char.isprintable() else " " for char in message[:2000]).split())
    return _SECRET_LIKE.sub(_LEFT_OUT, line)[:_LONGEST_SAID]
