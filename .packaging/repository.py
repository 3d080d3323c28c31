"""Where the repository is (``tool.rpcshare`` in pyproject.toml), and its address in each npm package.

Run, it writes that address into every package.json of clients/; with --url, it prints it.
"""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


class Repository(NamedTuple):
    """The address of the repository."""

    url: str
    is_placeholder: bool
    """Whether nothing is there yet."""


def read_repository(root: Path = ROOT) -> Repository:
    """Return what pyproject.toml says."""
    table = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["rpcshare"]
    return Repository(table["repository"], table["is-placeholder"])


def npm_addresses(url: str, directory: str) -> dict[str, Any]:
    """Return what the package.json of the folder ``directory`` says of the repository at ``url``."""
    return {
        "homepage": f"{url}/tree/main/{directory}#readme",
        "bugs": f"{url}/issues",
        "repository": {"type": "git", "url": f"git+{url}.git", "directory": directory},
    }


def main() -> None:
    url = read_repository().url
    if "--url" in sys.argv:
        print(url)
        return
    for path in sorted((ROOT / "clients").glob("*/package.json")):
        manifest = json.loads(path.read_text("utf-8"))
        manifest |= npm_addresses(url, path.parent.relative_to(ROOT).as_posix())
        path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
