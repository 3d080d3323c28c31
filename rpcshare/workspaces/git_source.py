"""Which repositories may be cloned, and with which key of the vault."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.vault.entry import organization_of, owner_of

if TYPE_CHECKING:
    from rpcshare.auth.caller import Caller
    from rpcshare.vault.entry import VaultEntry
    from rpcshare.vault.vault import Vault

__all__ = ["GIT_SERVICE", "GitKey", "GitLocation", "find_key", "parse_git_url"]

GIT_SERVICE = "git"
"""The service of entries in the vault that are keys for repositories."""

_SCP = re.compile(r"(?P<user>[A-Za-z0-9._-]+)@(?P<host>[A-Za-z0-9.-]+):(?P<path>[^/\s-][^\s]*)")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_PORTS = {"https": 443, "ssh": 22}


class GitLocation(NamedTuple):
    """Where a repository is."""

    url: str
    """As git is given it; without a password."""
    scheme: str
    """``https``, ``ssh`` or ``file``."""
    host: str
    port: int
    path: str


class GitKey(NamedTuple):
    """A key for a host: a token, ``USER:TOKEN``, or a private key of SSH."""

    entry_id: str
    value: str

    def __repr__(self) -> str:
        """Leave out the value."""
        return f"GitKey({self.entry_id!r})"


def parse_git_url(url: str, file_root: Path | None = None) -> GitLocation:
    """Return where a repository is.

    Args:
        url: ``https://HOST/PATH``, ``ssh://USER@HOST/PATH``, ``USER@HOST:PATH``, or ``file:///PATH``.
        file_root: the directory that repositories of this machine are in; None: there are none.

    Raises:
        ShareError: INVALID_ARGUMENT. The URL is not repeated: it may have a password in it.
    """
    if not url.isascii() or not url.isprintable() or " " in url or url.startswith("-"):
        raise _wrong("that is no URL of a repository")
    match = _SCP.fullmatch(url) if "://" not in url else None
    if match is not None:
        url = f"ssh://{match['user']}@{match['host']}/{match['path']}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _wrong("that is no URL of a repository") from None
    scheme = parts.scheme.lower()
    if scheme == "file" and file_root is not None:
        return _file_location(parts.netloc, unquote(parts.path), file_root)
    if scheme not in _PORTS:
        allowed = "https:// and ssh://" if file_root is None else "https://, ssh:// and file://"
        raise _wrong(f"repositories are cloned from {allowed}")
    if parts.password is not None or (scheme == "https" and parts.username is not None):
        raise _wrong("keep the key in the vault, for the service git, and not in the URL")
    host = (parts.hostname or "").lower().removesuffix(".")
    if not _HOST.fullmatch(host) or re.fullmatch(r"(0x[0-9a-f]*|[0-9]+)", host.rpartition(".")[2]):
        raise _wrong("name the host of the repository, not an address")
    if parts.query or parts.fragment or len(parts.path) < 2:
        raise _wrong("that is no URL of a repository")
    user = parts.username
    if user is not None and not _USER.fullmatch(user):
        raise _wrong("that is no name of a user")
    port = port or _PORTS[scheme]
    authority = f"{user}@{host}" if user else host
    shown = authority if port == _PORTS[scheme] else f"{authority}:{port}"
    return GitLocation(f"{scheme}://{shown}{parts.path}", scheme, host, port, parts.path.strip("/"))


def _file_location(netloc: str, path: str, root: Path) -> GitLocation:
    try:
        resolved, base = Path(path).resolve(strict=True), root.resolve(strict=True)
    except (OSError, ValueError):
        raise _wrong("there is no such repository") from None
    if netloc or not resolved.is_dir() or not resolved.is_relative_to(base) or resolved == base:
        raise _wrong("there is no such repository")
    return GitLocation(f"file://{resolved}", "file", "", 0, str(resolved))


async def find_key(
    vault: Vault, caller: Caller, location: GitLocation, workspace_id: str, name: str, wanted: str | None
) -> GitKey | None:
    """Return the key of the vault that a repository is cloned with; None: it is cloned without one.

    A key is only ever shown to a host that it is for: its name, or one of its scopes, is ``HOST`` or
    ``HOST/PATH`` of what the repository's path begins with. Otherwise whoever may use a key of an
    organization could have it sent anywhere.

    Args:
        vault: where keys are.
        caller: whose keys, and whose organization's.
        location: of the repository.
        workspace_id: of the workspace, which a grant may name.
        name: its name, which a grant of the caller's own key may name, too.
        wanted: the id or name of a key; None: the one that is for most of the path, the newest of several.

    Raises:
        ShareError: INVALID_ARGUMENT: the key that is wanted is not there, or not for this host.
        VaultIntegrityError, DatabaseError: the vault failed.
    """
    best: tuple[int, VaultEntry] | None = None
    now = int(time.time() * 1000)
    own, organization = owner_of(caller), organization_of(caller)
    owners = [each for each in (own, organization) if each is not None]
    for owner in owners:
        for entry in await vault.list([owner]):
            is_other = wanted is not None and wanted not in (entry.id, entry.name)
            if entry.service != GIT_SERVICE or is_other or entry.is_over(now):
                continue
            purposes = [f"workspace:{workspace_id}", *([f"workspace:{name}"] if owner == own else [])]
            length = _fit(entry, location)
            # Of two that fit as well, the caller's own is taken, and of one owner's the newest.
            is_better = (
                best is None or length > best[0] or (length == best[0] and entry.owner == best[1].owner)
            )
            if length and is_better and any(map(entry.is_granted, purposes)):
                best = length, entry
    if best is None:
        if wanted is not None:
            message = (
                "there is no such key of the service git for this host (its name or a scope is the host)"
            )
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"source.key: {message}")
        return None
    found = best[1]
    _, value = await vault.retrieve(owners, found.id)
    return GitKey(found.id, value)


def _fit(entry: VaultEntry, location: GitLocation) -> int:
    """Return how much of a repository's place an entry names; 0: it is not for it."""
    place = f"{location.host}/{location.path}".lower()
    longest = 0
    for name in (entry.name, *entry.scopes):
        prefix = name.lower().strip("/")
        if place == prefix or place.startswith(f"{prefix}/"):
            longest = max(longest, len(prefix))
    return longest


def _wrong(why: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, f"source.git: {why}")
