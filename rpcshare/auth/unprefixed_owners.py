"""Whose the shares are whose owner has no source: those of stores that were written before owners had one.

The store keeps the answer, ``auth/unprefixed-owners``, from the first start on: a source that is configured
later does not get what was somebody else's.
"""

import logging
from collections.abc import Sequence

import msgspec

from rpcshare.auth.api_keys import find_key, list_key_objects
from rpcshare.auth.subject_sources import Source
from rpcshare.auth.subjects import ADMIN_SUBJECT
from rpcshare.storage import ObjectStore, PreconditionFailedError, StoreError

__all__ = ["UNPREFIXED_KEY", "UnprefixedOwners", "kept_unprefixed_owners"]

logger = logging.getLogger(__name__)

UNPREFIXED_KEY = "auth/unprefixed-owners"

_VERSION = 1


class UnprefixedOwners(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Whose the owners without a source are."""

    v: int = _VERSION
    sources: list[str]
    """Callers of these sources who have the name."""
    key_names: list[str] = []
    """But these are API keys' alone, as there was a key of the name."""

    def are_of(self, source: str, subject: str) -> bool:
        """Whether the owner ``subject``, without a source, is the subject of that name of ``source``."""
        if subject == ADMIN_SUBJECT and source == Source.ADMIN:
            return True
        return source == Source.KEY if subject in self.key_names else source in self.sources


async def kept_unprefixed_owners(store: ObjectStore, outside: Sequence[str]) -> UnprefixedOwners:
    """Return what the store says, or decide it, and have the store say so.

    Names that API keys have are those keys'. Any other is of the one source ``outside``; if there are none or
    several, it is an API key's. A token that the server has signed itself is believed, too: nobody but the
    operator can make one.

    Args:
        store: where.
        outside: the sources in the settings of which others hand out the names.

    Raises:
        StoreError: the store failed, or what it says cannot be read.
    """
    found = await store.get(UNPREFIXED_KEY)
    if found is None:
        decided = UnprefixedOwners(
            sources=[outside[0] if len(outside) == 1 else Source.KEY, Source.TOKEN],
            key_names=sorted(await _names_of_keys(store)),
        )
        if len(outside) > 1 and await _has_shares(store):
            logger.warning(
                "shares from before sources of subjects were told apart are taken for API keys' now: if they "
                "are others', name their sources with --unprefixed-subjects"
            )
        try:
            await store.put(UNPREFIXED_KEY, msgspec.json.encode(decided), if_absent=True)
        except PreconditionFailedError:  # another node has decided it
            found = await store.get(UNPREFIXED_KEY)
        else:
            return decided
    try:
        kept = msgspec.json.decode(found.body if found else b"", type=UnprefixedOwners)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise StoreError(f"{UNPREFIXED_KEY} cannot be read: {exc}") from exc
    if kept.v != _VERSION:
        raise StoreError(f"{UNPREFIXED_KEY} is of another version of rpcshare")
    return kept


async def _has_shares(store: ObjectStore) -> bool:
    async for _ in store.list("share/"):
        return True
    return False


async def _names_of_keys(store: ObjectStore) -> set[str]:
    names = set()
    async for key_id, _ in list_key_objects(store):
        found = await find_key(store, key_id)
        if found is not None:
            names.add(found[0].name)
    return names
