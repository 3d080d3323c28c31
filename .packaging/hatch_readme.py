"""Gives the package README.md as its description, with links that lead into the repository."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """Sets ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Make relative links absolute: an index shows the text with nothing beside it."""
        base = f"{metadata['urls']['Repository']}/blob/main/"
        text = Path(self.root, "README.md").read_text("utf-8")
        text = re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", rf"]({base}\1)", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
