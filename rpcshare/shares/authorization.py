"""Letting callers in to open shares: what :mod:`~rpcshare.shares.access` decides, with what that takes."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from rpcshare.auth.caller import Caller, View
from rpcshare.auth.passwords import Passwords, check_password
from rpcshare.auth.rate_limits import FailureLimit
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import access
from rpcshare.shares.access_settings import AccessChange, AccessOptions, ViewToken
from rpcshare.shares.adoption import may_adopt
from rpcshare.shares.objects import Head
from rpcshare.shares.open_share import OpenShare
from rpcshare.shares.share_identity import Credentials

__all__ = ["Authorization"]

_CHANGES_WAITING = 8
_DECISIONS = 10  # on one read, whose share has other settings each time


class Authorization:
    """Verifies secrets and passwords of shares, and makes view tokens."""

    def __init__(self, credentials: Credentials, clock: Callable[[], int], failures: FailureLimit) -> None:
        """Count wrong guesses in ``failures``. The ``clock`` tells milliseconds since the epoch."""
        self._credentials = credentials
        self._clock = clock
        self._failures = failures
        self._passwords = Passwords()
        # One password at a time is set: who sets many holds up no reader who shows one.
        self._setting = asyncio.Lock()
        self._changes_waiting = 0
        self._view_tokens = credentials.view_tokens()

    def may_write(self, caller: Caller, share: OpenShare, secret: object) -> None:
        """Return if ``caller`` may write a share.

        Raises:
            ShareError: INVALID_ARGUMENT, and as :func:`~rpcshare.shares.access.may_write` does.
        """
        if secret is None:
            access.may_write(caller, share.head, None, self._credentials)
            return
        if not isinstance(secret, str):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "secret: must be a string")
        with self._attempt_secret(caller, share.share_id, secret):
            access.may_write(caller, share.head, secret, self._credentials)

    def adoptable(
        self, caller: Caller, session_id: str, found: Sequence[tuple[str, Head]], secret: str | None
    ) -> str | None:
        """Return the id of the share, of those ``found`` that belong to nobody, which ``caller`` may adopt.

        Raises:
            ShareError: INVALID_SECRET: a secret is given, and it is that of none.
        """
        if not found:
            return None
        shown = nullcontext() if secret is None else self._attempt_secret(caller, session_id, secret)
        with shown:
            for share_id, head in found:
                if may_adopt(caller, head, secret, self._credentials):
                    return share_id
            if secret is not None:
                raise ShareError(ErrorCode.INVALID_SECRET, "Invalid secret")
        return None

    async def may_read(self, caller: Caller, share: OpenShare) -> None:
        """Return if ``caller`` may read a share.

        Raises:
            ShareError: as :func:`~rpcshare.shares.access.may_read` does.
        """
        if access.reads_without_password(caller, share.share_id, share.head):
            return  # a password that nothing depends on is not verified: it has not been right
        for _ in range(_DECISIONS):
            decided_on = share.head
            shown = caller.password
            with nullcontext() if shown is None else self._attempt_password(caller, share, shown):
                await access.may_read(caller, share.share_id, share.head, self._passwords)
            if decided_on is share.head:  # to verify a password takes its time
                return
        raise ShareError(
            ErrorCode.RATE_LIMITED,
            "The settings of this share are being changed all the time",
            retry_after=5.0,
        )

    async def unlock(self, caller: Caller, share: OpenShare, password: object, seconds: float) -> ViewToken:
        """Return a view token for who knows the password of a share.

        Raises:
            ShareError: INVALID_ARGUMENT, and as :func:`~rpcshare.shares.access.may_unlock` does.
        """
        password = check_password(password)
        head = share.head
        with self._attempt_password(caller, share, password):
            await access.may_unlock(caller, head, password, self._passwords)
        return self.view_token(share.share_id, head, seconds)

    def view_token(self, share_id: str, head: Head, seconds: float) -> ViewToken:
        """Return a view token that ends after ``seconds``, and with the share in any case."""
        expires_at = self._clock() + round(seconds * 1000)
        if head.expires_at is not None:
            expires_at = min(expires_at, head.expires_at)
        view = View(share_id, head.generation, head.epoch)
        return ViewToken(self._view_tokens.issue(view, expires_at / 1000), expires_at)

    async def change(self, wanted: AccessOptions, head: Head | None, now: int) -> AccessChange:
        """Return what ``wanted`` changes about the share with ``head``, or makes of a new one.

        Raises:
            ShareError: RATE_LIMITED: too many passwords are being hashed.
        """
        expires_at = wanted.expires_in
        if isinstance(expires_at, float | int):
            expires_at = now + round(expires_at * 1000)
        password = wanted.password
        kept = head.password_hash if head is not None else None
        if isinstance(password, str):
            password = await self._hashed(password, kept)
        return AccessChange(wanted.visibility, expires_at, password)

    async def _hashed(self, password: str, kept: str | None) -> str:
        if self._changes_waiting >= _CHANGES_WAITING:
            raise ShareError(ErrorCode.RATE_LIMITED, "Too many passwords are being set", retry_after=5.0)
        self._changes_waiting += 1
        try:
            async with self._setting:
                # The same password again is no change, which would end view tokens.
                if kept is not None and await self._passwords.is_right(password, kept):
                    return kept
                return await self._passwords.hash(password)
        finally:
            self._changes_waiting -= 1

    def _attempt_secret(self, caller: Caller, of: str, secret: str) -> AbstractContextManager[None]:
        return self._failures.attempt(caller.address, f"secret {of} {secret}")

    def _attempt_password(
        self, caller: Caller, share: OpenShare, password: str
    ) -> AbstractContextManager[None]:
        return self._failures.attempt(caller.address, f"password {share.share_id} {password}")
