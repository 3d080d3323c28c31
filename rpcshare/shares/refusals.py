"""The last sync of a share that was refused: many a client tells nobody, and does not send it again.

What would be refused again is an object in the store, ``refusal/ID``, so that all nodes know it, and after a
restart as well. What failed for a time is known to this node alone: the store may be what failed. Neither
holds content: when, a code, and the sentence that the client was answered.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

import msgspec

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.storage import ObjectStore, StoreError

__all__ = ["Refusal", "Refusals"]

logger = logging.getLogger(__name__)

_LASTING = frozenset({ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.INVALID_ARGUMENT})
TOLD = _LASTING | {ErrorCode.RATE_LIMITED, ErrorCode.STORAGE_UNAVAILABLE}
"""What a share lacks something by."""

_PREFIX = "refusal/"
_KEPT = 1000  # shares; of more the oldest are forgotten
_REFRESH_EVERY = 2.0  # seconds
_TELL_EVERY = 10.0  # seconds, of one share
_MAX_SENTENCE = 300  # characters


class Refusal(msgspec.Struct, frozen=True):
    """Why the last sync of a share was not taken."""

    time: int
    """Milliseconds since the epoch."""
    code: str
    message: str


class _Stored(msgspec.Struct, frozen=True):
    refusal: Refusal
    generation: str
    sync_count: int
    """Of the share then: once it is another, a later sync has been taken."""


class _Known:
    def __init__(self, stored: _Stored, etag: str | None) -> None:
        self.stored = stored
        self.etag = etag
        self.told_at = -_TELL_EVERY


_decoder = msgspec.json.Decoder(_Stored)


class Refusals:
    """What was refused last, for each share that has taken no sync since. Never raises StoreError."""

    def __init__(self, store: ObjectStore, *, is_shared: bool, clock: Callable[[], int]) -> None:
        """Keep them in ``store``, to which other nodes may write if ``is_shared``.

        ``clock`` returns the time in milliseconds since the epoch.
        """
        self._store = store
        self._is_shared = is_shared
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()  # the one that was refused last at the end
        self._refreshed_at: float | None = None

    def __contains__(self, share_id: str) -> bool:
        """Whether a share has taken no sync since one was refused, as far as this node knows."""
        return share_id in self._known

    async def add(self, share_id: str, generation: str, sync_count: int, error: ShareError) -> None:
        """Take note that a sync of a share was refused, by somebody who may write it."""
        if error.code not in TOLD:
            return
        sentence = error.message[:_MAX_SENTENCE]
        stored = _Stored(Refusal(self._clock(), str(error.code), sentence), generation, sync_count)
        known = self._known.setdefault(share_id, _Known(stored, None))
        known.stored = stored
        self._known.move_to_end(share_id)
        is_told = monotonic() - known.told_at >= _TELL_EVERY  # and not each time that it is sent again
        if is_told:
            known.told_at = monotonic()
            logger.warning("A sync of share %s was refused: %s (%s)", share_id, error.message, error.code)
        try:
            if is_told and error.code in _LASTING:
                known.etag = await self._store.put(_PREFIX + share_id, msgspec.json.encode(stored))
            await self._forget_oldest()
        except StoreError as exc:
            logger.warning("That a sync of share %s was refused is not stored: %s", share_id, exc)

    async def _forget_oldest(self) -> None:
        while len(self._known) > _KEPT:
            share_id, oldest = self._known.popitem(last=False)
            if oldest.etag is not None:
                await self._store.delete([_PREFIX + share_id])

    async def find(self, share_id: str, generation: str, sync_count: int) -> Refusal | None:
        """Return what was refused, if the share has taken no sync since."""
        await self._refresh()
        known = self._known.get(share_id)
        if known is None or (known.stored.generation, known.stored.sync_count) != (generation, sync_count):
            return None
        return known.stored.refusal

    async def find_listed(self, share_id: str, sync_count: int) -> Refusal | None:
        """Return what :meth:`find` does, for a row of a listing, which may be a little late."""
        await self._refresh()
        known = self._known.get(share_id)
        is_newest = known is not None and known.stored.sync_count >= sync_count
        return known.stored.refusal if known is not None and is_newest else None

    async def clear(self, share_id: str) -> None:
        """Take note that a share has taken a sync, or is gone. Cheap, if nothing was refused."""
        known = self._known.pop(share_id, None)
        if known is not None and known.etag is not None:
            try:
                await self._store.delete([_PREFIX + share_id])
            except StoreError as exc:  # it is seen to be old by its count of syncs
                logger.info("What was refused of share %s stays stored: %s", share_id, exc)

    async def _refresh(self) -> None:
        """Read what was stored before this node began, and by others."""
        now = monotonic()
        if self._refreshed_at is not None and (
            not self._is_shared or now - self._refreshed_at < _REFRESH_EVERY
        ):
            return
        self._refreshed_at = now
        found: set[str] = set()
        try:
            async for info in self._store.list(_PREFIX):
                share_id = info.key.removeprefix(_PREFIX)
                found.add(share_id)
                await self._read(share_id, info.etag)
                if len(found) == _KEPT:
                    break
        except StoreError as exc:
            logger.warning("What was refused cannot be read: %s", exc)
            return
        for share_id in [each for each, known in self._known.items() if known.etag and each not in found]:
            del self._known[share_id]  # another node has taken a sync

    async def _read(self, share_id: str, etag: str) -> None:
        known = self._known.get(share_id)
        if known is not None and known.etag == etag:
            return
        stored = await self._store.get(_PREFIX + share_id)
        if stored is None:
            return
        try:
            self._known[share_id] = _Known(_decoder.decode(stored.body), stored.etag)
        except (msgspec.DecodeError, UnicodeDecodeError):
            logger.warning("The store holds at %s%s what cannot be read", _PREFIX, share_id)
