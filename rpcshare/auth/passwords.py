"""Passwords of shares: what is kept of them, and how one is verified.

People choose passwords, so guessing them must be slow wherever it is done: what is kept is scrypt's
(RFC 7914), which takes memory as well as time. That is also why few are computed at once.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import unicodedata
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from rpcshare.errors import ErrorCode, ShareError

__all__ = ["MAX_PASSWORD_LENGTH", "Passwords", "check_password"]

MAX_PASSWORD_LENGTH = 256
"""In characters."""

# OWASP's password storage cheat sheet gives n=2^15, r=8, p=3 among its choices of like strength; these take
# 32 MiB and some 80 ms, three times over.
_N, _R, _P = 2**15, 8, 3
_SALT_BYTES = 16
_AT_ONCE = 2
_MAX_WAITING = 16
_REMEMBERED = 1024  # passwords that were right


def check_password(value: object) -> str:
    """Return ``value`` if it can be the password of a share.

    Raises:
        ShareError: INVALID_ARGUMENT.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_PASSWORD_LENGTH:
        message = f"password: must be a string of 1 to {MAX_PASSWORD_LENGTH} characters"
        raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
    return value


class Passwords:
    """Hashes and verifies passwords in threads, at most two at once.

    Those that were right are remembered for as long as the process runs, as keyed hashes: a client that
    shows a password with each request does not pay for it each time.
    """

    def __init__(self) -> None:
        # Threads of its own: work whose caller has gone away goes on, and takes its place until it is done.
        self._threads = ThreadPoolExecutor(_AT_ONCE, "rpcshare-passwords")
        self._waiting = 0
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()  # the least recently shown first

    async def hash(self, password: str) -> str:
        """Return what to keep of a password that :func:`check_password` has let pass.

        Raises:
            ShareError: RATE_LIMITED: too many are waiting for theirs.
        """
        salt = secrets.token_bytes(_SALT_BYTES)
        digest = await self._scrypt(password, salt, _N, _R, _P)
        return "$".join(("scrypt", str(_N), str(_R), str(_P), _text(salt), _text(digest)))

    async def is_right(self, password: str, kept: str) -> bool:
        """Whether ``password`` is the one that :meth:`hash` made ``kept`` of.

        Raises:
            ShareError: RATE_LIMITED: too many are waiting for an answer.
        """
        if not 1 <= len(password) <= MAX_PASSWORD_LENGTH:
            return False
        seen = hmac.digest(self._key, kept.encode() + b"\0" + _bytes(password), "sha256")
        if seen in self._right:
            self._right.move_to_end(seen)
            return True
        _, n, r, p, salt, digest = kept.split("$")
        computed = await self._scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
        if not hmac.compare_digest(computed, base64.b64decode(digest)):
            return False
        self._right[seen] = None
        if len(self._right) > _REMEMBERED:
            self._right.popitem(last=False)
        return True

    async def _scrypt(self, password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
        if self._waiting >= _MAX_WAITING:
            message = "Too many passwords are being verified"
            raise ShareError(ErrorCode.RATE_LIMITED, message, retry_after=5.0)
        self._waiting += 1
        try:
            work = partial(
                hashlib.scrypt, _bytes(password), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32
            )
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def _bytes(password: str) -> bytes:
    # As RFC 8265 has it: a keyboard's way to write an accent makes no difference.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
