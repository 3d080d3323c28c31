"""Entries of the vault as their owners see them: never a value."""

import msgspec

from rpcshare.render import figures
from rpcshare.render.lenient_json import Fields
from rpcshare.vault.entry import VaultEntry

__all__ = ["VaultEntryView", "view_of_entry"]


class VaultEntryView(msgspec.Struct, frozen=True):
    """An entry in the list."""

    id: str
    service: str
    name: str
    owner: str
    changed: str
    used: str
    expires: str
    is_managed: bool
    """Whether it is in the hands of who looks at the page."""


def view_of_entry(entry: VaultEntry, now: int, *, manages_organization: bool) -> VaultEntryView:
    """Return what is shown of an entry."""
    expires = "never" if entry.expires_at is None else figures.moment(entry.expires_at)
    return VaultEntryView(
        entry.id,
        entry.service,
        Fields({"name": entry.name}).line("name", limit=120),
        "the organization" if entry.is_of_organization else "you",
        figures.moment(entry.rotated_at or entry.created_at),
        "never" if entry.used_at is None else figures.moment(entry.used_at),
        "expired" if entry.is_over(now) else expires,
        is_managed=manages_organization or not entry.is_of_organization,
    )
