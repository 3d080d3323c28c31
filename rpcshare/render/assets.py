"""The files that pages load, under names that change with their content."""

import hashlib
from importlib.resources import files

import msgspec

__all__ = ["Asset", "Assets"]

_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class Asset(msgspec.Struct, frozen=True):
    """A file, as it is served."""

    name: str
    media_type: str
    content: bytes


class Assets:
    """The style sheet, the scripts and the icon."""

    def __init__(self) -> None:
        self.by_name: dict[str, Asset] = {}
        self._names: dict[str, str] = {}
        self.style = self._add("pages.css")
        self.theme = self._add("theme.js")
        # Modules import each other by the names that they are served under.
        for module in ("clipboard.js", "reading.js"):
            self._add(module)
        self.script = self._add("pages.js")
        self.agents = self._add("agents.js")
        self.icon = self._add("icon.svg")

    def _add(self, file: str) -> str:
        content = (files("rpcshare.render") / "static" / file).read_bytes()
        for source, served in self._names.items():
            content = content.replace(b'"./%b"' % source.encode(), b'"./%b"' % served.encode())
        stem, _, ending = file.rpartition(".")
        name = f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{ending}"
        self._names[file] = name
        self.by_name[name] = Asset(name, _MEDIA_TYPES[ending], content)
        return name
