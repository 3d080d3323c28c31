"""Gives the package its addresses, and README.md as its description, whose links lead into the repository."""

import re
import sys
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

sys.path.insert(0, str(Path(__file__).parent))

from repository import read_repository


class Metadata(MetadataHookInterface):
    """Sets ``readme`` and ``urls``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Make relative links absolute: an index shows the text with nothing beside it."""
        repository = read_repository(Path(self.root)).url
        metadata["urls"] = {
            "Homepage": repository,
            "Repository": repository,
            "Changelog": f"{repository}/blob/main/CHANGELOG.md",
            "Issues": f"{repository}/issues",
        }
        text = Path(self.root, "README.md").read_text("utf-8")
        text = re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", rf"]({repository}/blob/main/\1)", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
