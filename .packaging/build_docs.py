"""Builds the documentation as a site, in build/site.

The pages of docs/ are as they are in the repository. The reference is made from the code: settings, commands,
the HTTP API and the metrics of a server that is started for it, the Python API by mkdocstrings. A link that
leads nowhere ends the build, and so does anything that would have a reader's browser ask another host.
"""

import contextlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
from repository import read_repository

from rpcshare.cli.group import CommandGroup
from rpcshare.config import FILE_ONLY, Settings, environment_name, option_name

ROOT = Path(__file__).parents[1]
PAGES = Path(__file__).parent / "docs"
SOURCE, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
REPOSITORY = read_repository().url

# Pages that stand elsewhere in the repository, by their names on the site.
ELSEWHERE = {
    "index.md": "README.md",
    "protocol.md": "PROTOCOL.md",
    "changelog.md": "CHANGELOG.md",
    "share-next.md": "clients/share-next/README.md",
    "opencode-plugin.md": "clients/opencode-plugin/README.md",
    "browser.md": "clients/browser/README.md",
    "messagepack.md": "clients/messagepack/README.md",
    "types.md": "clients/types/README.md",
}

NAV: list[dict[str, Any]] = [
    {"Quick start": "index.md"},
    {
        "How to": [
            {"Share from opencode": "opencode.md"},
            {"opencode plugin": "opencode-plugin.md"},
            {"Forks and agents in TypeScript": "share-next.md"},
            {"Python, TypeScript, curl, shell": "clients.md"},
            {"Show a share on a web page": "browser.md"},
            {"MessagePack in TypeScript": "messagepack.md"},
            {"TypeScript types": "types.md"},
            {"Install": "install.md"},
            {"Run a server": "running.md"},
            {"Deploy: systemd, containers, Kubernetes, proxies": "deploying.md"},
            {"Keys, tokens, private shares": "access.md"},
            {"People": "people.md"},
            {"Upgrade, back up, restore": "upgrading.md"},
            {"Move from the older deployment": "moving.md"},
            {"Security": "security.md"},
            {"Troubleshooting": "troubleshooting.md"},
        ]
    },
    {
        "Reference": [
            {"Settings": "reference/settings.md"},
            {"Command line": "reference/commands.md"},
            {"HTTP API": "reference/http.md"},
            {"Try the HTTP API": "reference/try.md"},
            {"Metrics": "reference/metrics.md"},
            {"Python client": "reference/client.md"},
            {"RPC library": "reference/rpc.md"},
            {"ShareRpc": "reference/share-rpc.md"},
            {"Protocol": "protocol.md"},
            {"Pages": "pages.md"},
        ]
    },
    {
        "Explanation": [
            {"Architecture": "architecture.md"},
            {"Performance": "performance.md"},
            {"Platforms and formats": "platforms.md"},
            {"Changelog": "changelog.md"},
        ]
    },
]

CONFIGURATION: dict[str, Any] = {
    "site_name": "rpcshare",
    "site_description": "Share coding-agent sessions live from a server of your own",
    "site_url": "",
    # No repo_url: the theme's script would ask the repository's host for its number of stars.
    "docs_dir": str(SOURCE),
    "site_dir": str(SITE),
    "use_directory_urls": False,
    "theme": {
        "name": "material",
        "font": False,  # the reader's own: no other host is asked
        "features": ["navigation.sections", "navigation.top", "content.code.copy", "search.suggest"],
        "palette": [
            {
                "media": "(prefers-color-scheme: light)",
                "scheme": "default",
                "toggle": {"icon": "material/weather-night", "name": "Dark"},
            },
            {
                "media": "(prefers-color-scheme: dark)",
                "scheme": "slate",
                "toggle": {"icon": "material/weather-sunny", "name": "Light"},
            },
        ],
    },
    "extra": {"generator": False},
    "markdown_extensions": [
        "admonition",
        "attr_list",
        "tables",
        {"toc": {"permalink": True}},
        "pymdownx.superfences",
        "pymdownx.highlight",
    ],
    "plugins": [
        "search",
        {
            "mkdocstrings": {
                "handlers": {
                    "python": {
                        "paths": [str(ROOT)],
                        "options": {
                            "docstring_style": "google",
                            "show_source": False,
                            "show_root_heading": True,
                            "heading_level": 2,
                            "members_order": "source",
                            "separate_signature": True,
                            "show_signature_annotations": True,
                            "filters": ["!^_"],
                        },
                    }
                }
            }
        },
    ],
    "validation": {
        "nav": {"omitted_files": "warn", "not_found": "warn"},
        "links": {"not_found": "warn", "anchors": "warn", "unrecognized_links": "warn"},
    },
    "nav": NAV,
}


# --- pages that there are --------------------------------------------------------------------------


def copied() -> None:
    """Copy the pages, with links that fit the site."""
    by_path = {f"docs/{path.name}": path.name for path in (ROOT / "docs").glob("*.md")}
    by_path |= {path: name for name, path in ELSEWHERE.items()}
    for path, name in by_path.items():
        text = (ROOT / path).read_text("utf-8")
        led = partial(_led, path=path, by_path=by_path)
        text = re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", lambda link, led=led: f"]({led(link[1])})", text)
        (SOURCE / name).write_text(text)


def _led(link: str, path: str, by_path: dict[str, str]) -> str:
    """Return a link of the page ``path`` as the site has it: to a page of its own, or into the repository."""
    target, hash_, anchor = link.partition("#")
    place = os.path.normpath(Path(path).parent / target)
    if place in by_path:
        return by_path[place] + hash_ + anchor
    for folder in (f"{place}/README.md",):
        if folder in by_path:
            return by_path[folder] + hash_ + anchor
    if not (ROOT / place).exists():
        sys.exit(f"{path} links {link}, which does not exist")
    kind = "tree" if (ROOT / place).is_dir() else "blob"
    return f"{REPOSITORY}/{kind}/main/{place}{hash_}{anchor}"


# --- pages that are made ---------------------------------------------------------------------------


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def settings() -> str:
    lines = [
        "# Settings",
        "",
        "Made from the code. [Run a server](../running.md#settings) says where settings come from.",
        "",
        "| option | environment | default | |",
        "| --- | --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        if name in FILE_ONLY:
            continue
        description, _, default = (field.description or "").partition(" [default: ")
        default = default.rstrip("]") or _spelled(field.default)
        names = f"`{option_name(name)}` | `{environment_name(name)}`"
        lines.append(f"| {names} | {_cell(default)} | {_cell(description)} |")
    return "\n".join(lines) + "\n"


def _spelled(value: object) -> str:
    """Return a default as an option would have it; nothing where there is none."""
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{','.join(map(str, value))}`" if isinstance(value, tuple) else f"`{value}`"


def commands() -> str:
    lines = [
        "# Command line",
        "",
        "Made from the code: what `--help` prints. `rpcshare` is short for `python -m rpcshare`.",
        "",
    ]

    def add(command: click.Command, path: str, level: int, parent: click.Context | None) -> None:
        context = click.Context(
            command, info_name=path.rpartition(" ")[2], parent=parent, max_content_width=100
        )
        lines.extend([f"{'#' * level} {path}", "", "```text", command.get_help(context).strip(), "```", ""])
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None  # noqa: S101 -- it is there
                add(child, f"{path} {name}", level + 1, context)

    add(CommandGroup(), "rpcshare", 2, None)
    return "\n".join(lines)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run a server, whose API and metrics are described; yield its URL."""
    with tempfile.TemporaryDirectory() as data:
        command = [
            sys.executable,
            "-m",
            "rpcshare",
            "serve",
            "--port=0",
            f"--data-dir={data}/data",
            "--no-sign-in-link",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=data) as process:
            try:
                assert process.stdout is not None  # noqa: S101 -- it is there
                yield process.stdout.readline().split()[4]
            finally:
                process.terminate()
                process.communicate()


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 -- our own server
        return str(answer.read().decode())


def metrics(text: str) -> str:
    lines = [
        "# Metrics",
        "",
        "Made from what `GET /metrics` of a server answers.",
        "",
        "| metric | kind | |",
        "| --- | --- | --- |",
    ]
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        lines.append(f"| `{name}` | {kind} | {_cell(helps.get(name, ''))} |")
    return "\n".join(lines) + "\n"


def http(document: dict[str, Any]) -> str:
    lines = [
        "# HTTP API",
        "",
        "Made from the OpenAPI document, which each server has at `/openapi.json`. [Try it](try.md).",
        "[Protocol](../protocol.md#http-api) has the rules.",
        "",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += [f"## {method.upper()} {path}", "", operation["summary"] + ".", ""]
            if parameters := operation.get("parameters"):
                lines += ["| parameter | in | |", "| --- | --- | --- |"]
                lines += [
                    f"| `{each['name']}` | {each['in']} | {_cell(each['description'])} |"
                    for each in parameters
                ]
                lines.append("")
            if body := operation.get("requestBody"):
                ((media_type, content),) = body["content"].items()
                lines += [
                    f"Body, `{media_type}`:",
                    "",
                    "```json",
                    json.dumps(content["schema"], indent=2),
                    "```",
                    "",
                ]
            lines += ["| status | |", "| --- | --- |"]
            lines += [
                f"| {status} | {_cell(answer['description'])} |"
                for status, answer in operation["responses"].items()
            ]
            lines.append("")
    lines += ["## Schemas", ""]
    for name, schema in document["components"]["schemas"].items():
        lines += [f"### {name}", "", "```json", json.dumps(schema, indent=2), "```", ""]
    return "\n".join(lines)


def try_script(document: dict[str, Any]) -> str:
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "parameters": [
                {"name": each["name"], "in": each["in"], "description": each["description"]}
                for each in operation.get("parameters", [])
            ],
            "body": "{}" if "requestBody" in operation else None,
        }
        for path, each in document["paths"].items()
        for method, operation in each.items()
        if not path.endswith("/events")  # a stream has no end that this page could show
    ]
    script = (PAGES / "try.js").read_text()
    return script.replace(
        "const operations = OPERATIONS",
        "const operations = " + json.dumps(operations).replace("</", "<\\/"),
        1,
    )


def python_api(title: str, intro: str, names: list[str]) -> str:
    return "\n".join([f"# {title}", "", intro, "", *(f"::: {name}\n" for name in names)])


def client_api() -> str:
    import rpcshare  # noqa: PLC0415 -- what it exports is what is described

    names = [f"rpcshare.{name}" for name in rpcshare.__all__ if not name.startswith("__")]
    return python_api("Python client", "All that `rpcshare` exports.", names)


def rpc_api() -> str:
    import rpcshare.rpc  # noqa: PLC0415 -- likewise

    names = [f"rpcshare.rpc.{name}" for name in rpcshare.rpc.__all__]
    intro = "All that `rpcshare.rpc` exports. It depends on nothing else of the package."
    return python_api("RPC library", intro, names)


def share_rpc() -> str:
    types = (ROOT / "clients" / "types" / "index.d.ts").read_text()
    from rpcshare.server.share_rpc import ShareRpc  # noqa: PLC0415 -- likewise

    intro = inspect.cleandoc(ShareRpc.__doc__ or "")
    return "\n".join(
        [
            "# ShareRpc",
            "",
            "The remote main of a session at `/rpc`, as the code of the server has it. "
            "[Protocol](../protocol.md) has the rules.",
            "",
            intro,
            "",
            "::: rpcshare.server.share_rpc.ShareRpc",
            "",
            "## In TypeScript",
            "",
            "```ts",
            types.strip(),
            "```",
            "",
        ]
    )


# --- the site --------------------------------------------------------------------------------------

# What a browser fetches by itself; links that a reader may follow are another thing.
_TAGS = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\ssrc=["']?(?:https?:)?//[^\s>]*"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon|modulepreload))"""
    r"""[^>]*\shref=["']?(?:https?:)?//[^\s>]*""",
    re.IGNORECASE,
)
_STYLES = re.compile(r"""@import\s+["'(][^;]*|url\(["']?(?:https?:)?//[^)]*""", re.IGNORECASE)


def foreign_requests(site: Path) -> list[str]:
    """Return what of ``site`` would have a browser ask another host."""
    found = []
    for suffix, pattern in ((".html", _TAGS), (".css", _STYLES)):
        for path in sorted(site.rglob(f"*{suffix}")):
            found += [
                f"{path.relative_to(site)}: {each[0]}" for each in pattern.finditer(path.read_text("utf-8"))
            ]
    return found


def main() -> int:
    for folder in (SOURCE, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    (SOURCE / "reference").mkdir(parents=True)
    copied()
    with server() as url:
        document = json.loads(fetched(f"{url}/openapi.json"))
        document["servers"] = []
        pages = {
            "settings.md": settings(),
            "commands.md": commands(),
            "http.md": http(document),
            "try.md": (PAGES / "try.md").read_text(),
            "try.js": try_script(document),
            "openapi.json": json.dumps(document, indent=1),
            "metrics.md": metrics(fetched(f"{url}/metrics")),
            "client.md": client_api(),
            "rpc.md": rpc_api(),
            "share-rpc.md": share_rpc(),
        }
    for name, text in pages.items():
        (SOURCE / "reference" / name).write_text(text)
    configuration = ROOT / "build" / "mkdocs.yml"
    configuration.write_text(json.dumps(CONFIGURATION, indent=1))  # which YAML is, too
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-f", configuration]
    status = subprocess.run(command, check=False, cwd=ROOT).returncode
    if status:
        return status
    if foreign := foreign_requests(SITE):
        print("a browser would ask another host:", *foreign, sep="\n  ", file=sys.stderr)
        return 1
    print(f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
