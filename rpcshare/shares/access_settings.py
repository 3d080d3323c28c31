"""Who may read a share, and until when: what callers ask for, and what they are told."""

from typing import Self

import msgspec
from msgspec import UNSET, UnsetType

from rpcshare.auth.passwords import check_password
from rpcshare.durations import parse_duration
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.objects import Head, Visibility

__all__ = ["AccessChange", "AccessOptions", "AccessSettings", "ViewToken", "parse_expires_in"]

_NAMES = ("visibility", "expiresIn", "password")  # on the wire


class AccessOptions(msgspec.Struct, frozen=True):
    """What a caller asks for; UNSET is what it says nothing of."""

    visibility: Visibility | UnsetType = UNSET
    expires_in: float | UnsetType | None = UNSET
    """In seconds; None: never."""
    password: str | UnsetType | None = UNSET

    @classmethod
    def parse(cls, options: object) -> Self:
        """Return what ``options`` ask for: an object ``{visibility?, expiresIn?, password?}``, or None.

        Raises:
            ShareError: INVALID_ARGUMENT; the message names the option.
        """
        if options is None:
            return cls()
        if type(options) is not dict:
            raise _invalid("options: must be an object")
        if unknown := next((name for name in options if name not in _NAMES), None):
            raise _invalid(f"{unknown[:40]}: there is no such option; there are {', '.join(_NAMES)}")
        visibility = options.get("visibility", UNSET)
        if visibility is not UNSET and visibility not in tuple(Visibility):
            raise _invalid(f"visibility: must be one of {', '.join(Visibility)}")
        expires_in = options.get("expiresIn", UNSET)
        if expires_in not in (UNSET, None):
            expires_in = parse_expires_in(expires_in)
        password = options.get("password", UNSET)
        if password not in (UNSET, None):
            password = check_password(password)
        return cls(UNSET if visibility is UNSET else Visibility(visibility), expires_in, password)

    def with_default(self, visibility: Visibility) -> Self:
        """Return the options of a share that is made: with ``visibility``, unless they say another."""
        if self.visibility is not UNSET or visibility is Visibility.LINK:
            return self
        return msgspec.structs.replace(self, visibility=visibility)

    @property
    def are_given(self) -> bool:
        """Whether there is any."""
        return self != AccessOptions()

    def __repr__(self) -> str:
        """Leave out the password."""
        return f"AccessOptions(visibility={self.visibility!r}, expires_in={self.expires_in!r})"


class AccessChange(msgspec.Struct, frozen=True):
    """What is to be another in a head; UNSET stays as it is."""

    visibility: Visibility | UnsetType = UNSET
    expires_at: int | UnsetType | None = UNSET
    password_hash: str | UnsetType | None = UNSET

    def applied_to(self, head: Head) -> Head:
        """Return ``head`` with the change, which makes view tokens void if it is of who may read."""
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET}
        changed = msgspec.structs.replace(head, **given)
        if changed == head:
            return head
        is_of_readers = (changed.visibility, changed.password_hash) != (head.visibility, head.password_hash)
        return msgspec.structs.replace(changed, epoch=head.epoch + is_of_readers).revised()

    def __repr__(self) -> str:
        """Leave out the hash."""
        return f"AccessChange(visibility={self.visibility!r}, expires_at={self.expires_at!r})"


class AccessSettings(msgspec.Struct, frozen=True, rename="camel"):
    """What is told of a share to those who may change it."""

    visibility: Visibility
    has_password: bool
    expires_at: int | None
    """In milliseconds since the epoch; None: it does not."""

    @classmethod
    def of(cls, head: Head) -> Self:
        """Return the settings of a share."""
        return cls(head.visibility, head.password_hash is not None, head.expires_at)


class ViewToken(msgspec.Struct, frozen=True, rename="camel"):
    """A right to read one share, to be passed on."""

    token: str
    expires_at: int
    """In milliseconds since the epoch."""

    def __repr__(self) -> str:
        """Leave out the token."""
        return f"ViewToken(expires_at={self.expires_at})"


def parse_expires_in(value: object) -> float:
    """Return how many seconds ``value`` is: a number of them, or text such as ``30d``.

    Raises:
        ShareError: INVALID_ARGUMENT.
    """
    try:
        return parse_duration(value)
    except ValueError as exc:
        raise _invalid(f"expiresIn: {exc}") from None


def _invalid(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
