"""Prints the changelog of the version that is being released, or with --version the version itself.

It fails unless pyproject.toml, the chart and every npm package name the same version.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def versions() -> dict[str, str]:
    """Return the version that each package names, by its file."""
    found = {"pyproject.toml": tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]}
    chart = ROOT / "examples" / "helm" / "rpcshare" / "Chart.yaml"
    for key in ("version", "appVersion"):
        match = re.search(rf"^{key}: (\S+)$", chart.read_text(), re.MULTILINE)
        found[f"Chart.yaml, {key}"] = match[1] if match else ""
    for path in sorted((ROOT / "clients").glob("*/package.json")):
        found[path.relative_to(ROOT).as_posix()] = json.loads(path.read_text())["version"]
    return found


def notes(version: str) -> str:
    """Return the part of CHANGELOG.md on ``version``."""
    text = (ROOT / "CHANGELOG.md").read_text()
    match = re.search(rf"^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        sys.exit(f"CHANGELOG.md has no part on {version}")
    return match[1].strip()


def main() -> None:
    found = versions()
    if len(set(found.values())) != 1:
        sys.exit("not one version: " + ", ".join(f"{file} {version}" for file, version in found.items()))
    version = found["pyproject.toml"]
    print(version if "--version" in sys.argv else notes(version))


if __name__ == "__main__":
    main()
