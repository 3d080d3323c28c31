"""API keys: made here, and kept in the store as a hash with what the key stands for.

A key is ``rsk_``, its id, ``_`` and 43 random letters and digits. The id is no secret; with it in the key,
to verify one takes one look. The rest has 256 bits of entropy, so a plain SHA-256 is enough to keep: the slow
hashes that passwords need make guessing dear, and nobody guesses this.

``auth/key/{id}`` in the store holds an :class:`ApiKey` as JSON. A revoked key stays there, to be told of.
"""

import hashlib
import hmac
import re
import secrets
import string
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import NamedTuple

import msgspec

from rpcshare.auth.caller import CallerUser, DefaultVisibility, Scope
from rpcshare.auth.subjects import fault_of_subject
from rpcshare.durations import parse_duration
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.storage import ObjectInfo, ObjectStore, PreconditionFailedError, StoredObject, StoreError

__all__ = ["ApiKey", "ApiKeys", "NewApiKey", "UnknownApiKeyError", "id_of_key"]

KEY_PREFIX = "auth/key/"
"""Of the objects in the store."""

DEFAULT_SCOPES = (Scope.CREATE,)

MAX_RATE = 1_000_000
"""Requests a minute, at most, that a key may have as its limit."""

_VERSION = 1
_VERSION_OF_USERS = 2
"""Of the keys of users: a server that knows no users must not take one for a key of its own."""
_ATTEMPTS = 10  # at writing an object, which others hardly ever do at the same time
_ID_BYTES = 6
_SECRET_LENGTH = 43  # of 62 characters: 256 bits
_ALPHABET = string.ascii_letters + string.digits

_KEY = re.compile(rf"rsk_(?P<id>[0-9a-f]{{{2 * _ID_BYTES}}})_[A-Za-z0-9]{{{_SECRET_LENGTH}}}")
_ID = re.compile(rf"[0-9a-f]{{{2 * _ID_BYTES}}}")


class UnknownApiKeyError(ShareError):
    """There is no key of that id."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.INVALID_ARGUMENT, "id: there is no key of this id")


class ApiKey(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What is kept of a key. All times are milliseconds since the epoch."""

    v: int = _VERSION
    id: str
    name: str
    """The subject that the key stands for; keys of one name own the same shares."""
    scopes: frozenset[Scope]
    hash: str
    """SHA-256 of the whole key, hexadecimal."""
    created_at: int
    expires_at: int | None = None
    rotated_at: int | None = None
    """When another key took its place; it is revoked since."""
    revoked_at: int | None = None
    default_visibility: DefaultVisibility | None = None
    """Of the shares that are made with the key; None: the server's default."""
    user: str | None = None
    """The id of the user whose key it is; None: nobody's who signs in."""
    organization: str | None = None
    """That the user was in when the key was made: in another one it is good for nothing."""
    rate_limit: int | None = None
    """Requests a minute that may be made with it; None: as many as its user may make."""

    def fits(self, key: str) -> bool:
        """Whether this is what is kept of ``key``, in a time that does not tell how nearly."""
        return hmac.compare_digest(_hash(key), self.hash)

    def described(self) -> dict[str, object]:
        """Return what an admin may see of it, by the names of the wire."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": sorted(self.scopes),
            "createdAt": self.created_at,
            "expiresAt": self.expires_at,
            "rotatedAt": self.rotated_at,
            "revokedAt": self.revoked_at,
            **({"defaultVisibility": self.default_visibility} if self.default_visibility else {}),
            **({"rateLimit": self.rate_limit} if self.rate_limit else {}),
            **({"user": self.user, "organization": self.organization} if self.user else {}),
        }


class NewApiKey(msgspec.Struct, frozen=True):
    """A key that has just been made. Its text is nowhere else."""

    key: str
    kept: ApiKey

    def __repr__(self) -> str:
        """Leave out the key."""
        return f"NewApiKey({self.kept.id})"

    def described(self) -> dict[str, object]:
        """Return it as it is handed out, this one time, by the names of the wire."""
        kept = self.kept
        return {
            "id": kept.id,
            "name": kept.name,
            "key": self.key,
            "scopes": sorted(kept.scopes),
            "createdAt": kept.created_at,
            "expiresAt": kept.expires_at,
            **({"defaultVisibility": kept.default_visibility} if kept.default_visibility else {}),
            **({"rateLimit": kept.rate_limit} if kept.rate_limit else {}),
            **({"user": kept.user, "organization": kept.organization} if kept.user else {}),
        }


class _Owner(NamedTuple):
    user: str | None = None
    organization: str | None = None


class ApiKeys:
    """The keys in a store.

    Every method raises :class:`~rpcshare.storage.StoreError` when the store fails.
    """

    def __init__(self, store: ObjectStore, *, clock: Callable[[], float] = time.time) -> None:
        """Keep keys in ``store``; ``clock`` tells seconds since the epoch."""
        self._store = store
        self._clock = clock

    async def create(
        self,
        name: str,
        scopes: Collection[str] = DEFAULT_SCOPES,
        expires_in: object = None,
        default_visibility: DefaultVisibility | None = None,
        user: CallerUser | None = None,
        rate_limit: int | None = None,
    ) -> NewApiKey:
        """Make a key.

        Args:
            name: the subject that it stands for; of a user's key, what it is called.
            scopes: what it may do.
            expires_in: after what time it ends, as :func:`~rpcshare.durations.parse_duration` takes it; None:
                never.
            default_visibility: of the shares that are made with it; None: the server's default.
            user: whose it is; None: nobody's who signs in.
            rate_limit: requests a minute that may be made with it; None: no limit of its own.

        Raises:
            ShareError: INVALID_ARGUMENT.
        """
        granted = _checked_scopes(scopes)
        if fault := fault_of_subject(name, granted):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"name: {fault}")
        lifetime = None if expires_in is None else _milliseconds(expires_in)
        if rate_limit is not None and not 0 < rate_limit <= MAX_RATE:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"rateLimit: must be from 1 to {MAX_RATE:,}")
        of = _Owner() if user is None else _Owner(user.id, user.organization)
        return await self._make(name, granted, lifetime, default_visibility, of, rate_limit)

    async def find(self, key_id: str) -> ApiKey:
        """Return what is kept of a key.

        Raises:
            UnknownApiKeyError: there is none.
        """
        return (await self._find(key_id))[0]

    async def list(self) -> list[ApiKey]:
        """Return what is kept of every key, the oldest first."""
        kept = [decode_key(found) async for found in self._store.scan(KEY_PREFIX)]
        return sorted(kept, key=lambda key: (key.created_at, key.id))

    async def rotate(self, key_id: str) -> NewApiKey:
        """Make a key of the same name and scopes, with as long a life, and revoke the one of this id.

        Raises:
            UnknownApiKeyError: there is none.
            ShareError: INVALID_ARGUMENT: it has been revoked.
        """
        old, etag = await self._find(key_id)
        if old.revoked_at is not None:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "id: this key has been revoked; create another")
        lifetime = None if old.expires_at is None else old.expires_at - old.created_at
        # In this order: should it fail in the middle, the old key still works, and nobody has the new one.
        new = await self._make(
            old.name,
            old.scopes,
            lifetime,
            old.default_visibility,
            _Owner(old.user, old.organization),
            old.rate_limit,
        )
        now = self._now()
        ended = msgspec.structs.replace(old, rotated_at=now, revoked_at=now)
        try:
            await self._store.put(_object_key(key_id), msgspec.json.encode(ended), if_match=etag)
        except PreconditionFailedError:
            await self._store.delete([_object_key(new.kept.id)])
            raise ShareError(
                ErrorCode.INVALID_ARGUMENT, "id: this key has just been rotated or revoked"
            ) from None
        return new

    async def revoke(self, key_id: str) -> ApiKey:
        """End a key, and return what is kept of it. One that has been revoked stays as it is.

        Raises:
            UnknownApiKeyError: there is none of this id.
            StoreError: also if the store refuses each attempt.
        """
        for _ in range(_ATTEMPTS):
            kept, etag = await self._find(key_id)
            if kept.revoked_at is not None:
                return kept
            ended = msgspec.structs.replace(kept, revoked_at=self._now())
            try:
                await self._store.put(_object_key(key_id), msgspec.json.encode(ended), if_match=etag)
            except PreconditionFailedError:
                continue  # somebody else was first: with a rotation, or with this
            return ended
        raise StoreError(f"the object of API key {key_id} cannot be replaced: the store says that it changes")

    async def _make(
        self,
        name: str,
        scopes: frozenset[Scope],
        lifetime: int | None,
        default_visibility: DefaultVisibility | None,
        of: _Owner,
        rate_limit: int | None,
    ) -> NewApiKey:
        for _ in range(_ATTEMPTS):
            key_id = secrets.token_hex(_ID_BYTES)
            key = f"rsk_{key_id}_{''.join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))}"
            now = self._now()
            expires_at = None if lifetime is None else now + lifetime
            kept = ApiKey(
                id=key_id,
                name=name,
                scopes=scopes,
                hash=_hash(key),
                created_at=now,
                expires_at=expires_at,
                default_visibility=default_visibility,
                user=of.user,
                organization=of.organization,
                rate_limit=rate_limit,
                v=_VERSION if of.user is None else _VERSION_OF_USERS,
            )
            try:
                await self._store.put(_object_key(key_id), msgspec.json.encode(kept), if_absent=True)
            except PreconditionFailedError:
                continue  # the id is taken
            return NewApiKey(key, kept)
        raise StoreError("no API key can be made: the store says of every id that it is taken")

    async def _find(self, key_id: str) -> tuple[ApiKey, str]:
        found = await find_key(self._store, key_id)
        if found is None:
            raise UnknownApiKeyError
        return found

    def _now(self) -> int:
        return int(self._clock() * 1000)


def id_of_key(text: str) -> str | None:
    """Return the id in the key ``text``, or None if that is no key."""
    match = _KEY.fullmatch(text)
    return None if match is None else match["id"]


async def find_key(store: ObjectStore, key_id: str) -> tuple[ApiKey, str] | None:
    """Return what is kept of the key of this id and the object's etag, or None if there is none.

    Raises:
        StoreError: the store failed, or holds something else there.
    """
    if _ID.fullmatch(key_id) is None:
        return None
    found = await store.get(_object_key(key_id))
    return None if found is None else (decode_key(found), found.etag)


async def list_key_objects(store: ObjectStore) -> AsyncIterator[tuple[str, ObjectInfo]]:
    """Yield each key's id and object, without reading any.

    Raises:
        StoreError: the store failed.
    """
    async for info in store.list(KEY_PREFIX):
        yield info.key.removeprefix(KEY_PREFIX), info


def decode_key(found: StoredObject) -> ApiKey:
    """Return what the store keeps of a key.

    Raises:
        StoreError: the object is something else.
    """
    try:
        kept = msgspec.json.decode(found.body, type=ApiKey)
    except msgspec.DecodeError:  # not chained: it may quote the object
        raise StoreError(f"the object at {found.key} is no API key") from None
    version = _VERSION if kept.user is None else _VERSION_OF_USERS
    if kept.v != version or _object_key(kept.id) != found.key:
        raise StoreError(f"the object at {found.key} is of another version, or another key's")
    return kept


def _object_key(key_id: str) -> str:
    return KEY_PREFIX + key_id


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("ascii")).hexdigest()


def _milliseconds(expires_in: object) -> int:
    try:
        return int(parse_duration(expires_in) * 1000)
    except ValueError as exc:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"expiresIn: {exc}") from None


def _checked_scopes(scopes: Collection[str]) -> frozenset[Scope]:
    if not scopes or not set(scopes) <= set(Scope):
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"scopes: must be one or more of {', '.join(Scope)}")
    return frozenset(map(Scope, scopes))
