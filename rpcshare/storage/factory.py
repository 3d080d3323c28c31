"""From the URL in the settings to the store that it names."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from rpcshare.storage.memory import MemoryStore
from rpcshare.storage.s3_location import S3Location
from rpcshare.storage.sqlite import SqliteStore
from rpcshare.storage.store import ObjectStore

__all__ = ["open_store"]


async def open_store(
    url: str, *, key_file: Path | None = None, allow_plain: bool = False, takes_turns: bool = False
) -> ObjectStore:
    """Open the store that ``url`` names; with ``key_file``, as one whose objects are encrypted.

    ``memory://`` is a store that lasts as long as the process. ``sqlite:///PATH`` is one in a file:
    three slashes before a relative path, four in all for an absolute one. ``sqlite:PATH`` is the
    same. In PATH, ``%``, ``?`` and ``#`` are percent-encoded. ``s3://BUCKET/PREFIX`` is a bucket; its
    options, behind a ``?``, are the fields of :class:`~rpcshare.storage.s3_location.S3Location`.

    Args:
        url: which store.
        key_file: the keys, as :meth:`~rpcshare.storage.encryption_keys.KeyRing.read` takes them.
        allow_plain: read objects that are not encrypted, too.
        takes_turns: write to a file by turns with other processes that write to it all the time.

    Raises:
        ValueError: ``url`` names no store, or one for which a package is missing. The message says
            what to do, and does not repeat ``url``, which may hold credentials. Or the key file
            holds no keys; the message names it.
        StoreError: the store cannot be opened.
    """
    scheme, _, rest = url.partition(":")
    try:
        _, opener = _STORES[scheme.lower()]
    except KeyError:
        supported = ", ".join(form for form, _ in _STORES.values())
        raise ValueError(f"not the URL of a store; supported: {supported}") from None
    encrypt = None if key_file is None else _encryption(key_file, allow_plain=allow_plain)
    if takes_turns and opener is _open_sqlite:
        opener = partial(_open_sqlite, takes_turns=True)
    store = await opener(rest)
    return store if encrypt is None else encrypt(store)


def _encryption(key_file: Path, *, allow_plain: bool) -> Callable[[ObjectStore], ObjectStore]:
    # Not with the module: few need cryptography, which takes long to import.
    from rpcshare.storage.encryption import EncryptedStore  # noqa: PLC0415
    from rpcshare.storage.encryption_keys import KeyRing  # noqa: PLC0415

    keys = KeyRing.read(key_file)
    return lambda store: EncryptedStore(store, keys, allow_plain=allow_plain)


async def _open_memory(rest: str) -> MemoryStore:
    if rest != "//":
        raise ValueError("a store in memory has no name: its URL is memory://")
    return MemoryStore()


async def _open_sqlite(rest: str, *, takes_turns: bool = False) -> SqliteStore:
    if rest.startswith("//") and not rest.startswith("///"):
        raise ValueError("sqlite:// takes a third slash before a relative path, two before another")
    if "?" in rest or "#" in rest:
        raise ValueError("a sqlite:///PATH takes no query; in PATH, write %3F for ? and %23 for #")
    path = unquote(rest.removeprefix("///"))
    if not path or "\0" in path:
        raise ValueError("sqlite:/// needs the path of a file behind it")
    return await SqliteStore.open(Path(path), takes_turns=takes_turns)


async def _open_s3(rest: str) -> ObjectStore:
    location = S3Location.parse(rest)
    try:
        from rpcshare.storage.s3 import S3Store  # noqa: PLC0415 -- needs what not everybody installs
    except ModuleNotFoundError as exc:
        raise ValueError(f"s3:// needs the package {exc.name}: pip install 'rpcshare[s3]'") from exc
    return await S3Store.open(location)


# By scheme: what its URLs look like, and what opens the part behind the colon.
_STORES: dict[str, tuple[str, Callable[[str], Awaitable[ObjectStore]]]] = {
    "memory": ("memory://", _open_memory),
    "sqlite": ("sqlite:///PATH", _open_sqlite),
    "s3": ("s3://BUCKET/PREFIX", _open_s3),
}
