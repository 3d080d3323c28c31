"""API keys as an admin sees them."""

import msgspec

from rpcshare.auth.api_keys import ApiKey
from rpcshare.render import figures
from rpcshare.render.lenient_json import Fields

__all__ = ["KeyView", "view_of_key"]


class KeyView(msgspec.Struct, frozen=True):
    """A key in the list."""

    id: str
    name: str
    scopes: str
    created: str
    expires: str
    state: str
    is_usable: bool


def view_of_key(key: ApiKey, now: int) -> KeyView:
    """Return what is shown of a key."""
    state = "in use"
    if key.rotated_at is not None:
        state = "rotated"
    elif key.revoked_at is not None:
        state = "revoked"
    elif key.expires_at is not None and key.expires_at <= now:
        state = "expired"
    return KeyView(
        key.id,
        Fields({"name": key.name}).line("name", limit=120),
        ", ".join(sorted(key.scopes)),
        figures.moment(key.created_at),
        figures.moment(key.expires_at) if key.expires_at is not None else "never",
        state,
        is_usable=state == "in use",
    )
