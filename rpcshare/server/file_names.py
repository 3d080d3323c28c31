"""Names of downloads, which users and agents have chosen: safe in a header and in anybody's folder."""

import mimetypes
import re
import unicodedata
from urllib.parse import quote

__all__ = ["content_disposition", "safe_file_name"]

_LONGEST = 120  # characters
_SEPARATORS = re.compile(r"[/\\]")
_MEANT = re.compile(r'[<>:"|?*%;\'`$&]')  # by some shell, file system or header
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # Windows opens no file of these


def safe_file_name(name: str, otherwise: str, media_type: str = "") -> str:
    """Return the last part of ``name`` as a file may be called anywhere; ``otherwise``, if nothing is left.

    Args:
        name: what somebody called the file; may be a path, or empty.
        otherwise: what it is called then. Letters, digits, ``_`` and ``-``.
        media_type: gives ``otherwise`` its extension.
    """
    last = _SEPARATORS.split(name)[-1]
    visible = "".join(char for char in last if unicodedata.category(char) not in _INVISIBLE)
    made = _MEANT.sub("_", " ".join(visible.split())).strip(". ")
    if _DEVICES.match(made):
        made = f"_{made}"
    if not made:
        return otherwise + (mimetypes.guess_extension(media_type) or "")
    if len(made) > _LONGEST:
        stem, dot, extension = made.rpartition(".")
        is_extension = bool(dot) and len(extension) <= 10
        made = f"{stem[: _LONGEST - 11]}.{extension}" if is_extension else made[:_LONGEST]
    return made


def content_disposition(name: str) -> str:
    """Return the header that makes an answer a download called ``name`` (RFC 6266, RFC 8187)."""
    plain = _NOT_ASCII.sub("_", name)
    header = f'attachment; filename="{plain}"'
    return header if plain == name else f"{header}; filename*=UTF-8''{quote(name, safe='')}"
