"""What stands for an id in links and in the ``id`` of an element."""

import hashlib
import re

__all__ = ["anchor"]

_ANCHOR = re.compile(r"[A-Za-z0-9_-]{1,100}")


def anchor(item_id: str) -> str:
    """Return the id itself, or a hash where it has other characters than a link may have."""
    if _ANCHOR.fullmatch(item_id):
        return item_id
    return "-" + hashlib.sha256(item_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
