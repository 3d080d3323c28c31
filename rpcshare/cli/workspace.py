"""``rpcshare workspace``: what agents work on, and the files there."""

from __future__ import annotations

import asyncio
import base64
import re
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from rpcshare.cli.connection import Server, with_server
from rpcshare.cli.exit_status import NotFoundError
from rpcshare.cli.terminal import Column, ago, json_text, print_table, say
from rpcshare.rpc import Stub

__all__ = ["workspace"]

T = TypeVar("T")

_ID = re.compile(r"wsp_[0-9a-f]{24}")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_workspace_argument = click.argument("name", metavar="WORKSPACE")


def _with_resources(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command the options that say what a workspace may use and reach."""
    options = (
        click.option("--memory", metavar="SIZE", help="Memory of its agents, such as 1GiB."),
        click.option("--cpu", metavar="NUMBER", help="Processors of its agents, such as 2 or 0.5."),
        click.option("--disk", metavar="SIZE", help="Disk that it may take, such as 2GiB."),
        click.option("--timeout", metavar="TIME", help="How long an agent may run, such as 2h."),
        click.option("--mount", "mounts", metavar="NAME=WORKSPACE", multiple=True,
                     help="Another workspace, seen read-only at /mnt/NAME; may be repeated."),
        click.option("--host", "hosts", metavar="HOST", multiple=True,
                     help="A host that its agents may connect to; may be repeated."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.pass_context
def workspace(ctx: click.Context) -> None:
    """Make, list, change and remove workspaces, and look into their files.

    WORKSPACE is an id or a name.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@workspace.command("create", short_help="Make a workspace.")
@click.argument("name")
@click.option("--git", metavar="URL", help="Repository to clone: https://…, ssh://… or USER@HOST:PATH.")
@click.option("--ref", metavar="NAME", help="Branch or tag to check out.")
@click.option(
    "--key", metavar="NAME", help="Key of the vault, of the service git. [default: that of the host]"
)
@_with_resources
@_json_option
@with_server
def create(
    server: Server,
    name: str,
    git: str | None,
    ref: str | None,
    key: str | None,
    as_json: bool,
    **given: Any,  # noqa: ANN401 -- options
) -> None:
    """Make a workspace called NAME, empty or from a repository. Returns once that is cloned."""
    if git is None and (ref is not None or key is not None):
        raise click.UsageError("--ref and --key go with --git")
    wanted: dict[str, Any] = {"name": name}
    if git is not None:
        source = {"git": git, "ref": ref, "key": key}
        wanted["source"] = {name: value for name, value in source.items() if value is not None}

    async def make(workspaces: Stub) -> dict[str, Any]:
        wanted.update(await _given(workspaces, given))
        info: dict[str, Any] = await workspaces.create(wanted).info()
        return info

    info = _run(server, make)
    _print(info, as_json, f"made {info['name']} ({info['id']})")


@workspace.command("ls", short_help="List your workspaces.")
@_json_option
@with_server
def ls(server: Server, as_json: bool) -> None:
    """List the workspaces that you may use, the oldest first."""
    found: list[dict[str, Any]] = _run(server, lambda workspaces: workspaces.list())
    if as_json:
        click.echo(json_text(found))
    elif found:
        now = time.time()
        columns = [Column("id"), Column("name"), Column("status"), Column("disk", is_number=True)]
        columns += [Column("made"), Column("repository", without_room="cut")]
        print_table(columns, (_cells(each, now) for each in found))


@workspace.command("show", short_help="Show a workspace.")
@_workspace_argument
@_json_option
@with_server
def show(server: Server, name: str, as_json: bool) -> None:
    """Show what is known of WORKSPACE; what it holds on the disk is measured now."""

    async def ask(workspaces: Stub) -> dict[str, Any]:
        info: dict[str, Any] = await workspaces.get(await _id_of(workspaces, name)).info()
        return info

    _show(_run(server, ask), as_json)


@workspace.command("update", short_help="Change a workspace.")
@_workspace_argument
@click.option("--name", "new_name", metavar="NAME", help="Another name.")
@_with_resources
@_json_option
@with_server
def update(server: Server, name: str, new_name: str | None, as_json: bool, **given: Any) -> None:  # noqa: ANN401 -- options
    """Change WORKSPACE. Mounts and hosts replace those before; limits count from an agent's next start."""

    async def change(workspaces: Stub) -> dict[str, Any]:
        changes = await _given(workspaces, given)
        if new_name is not None:
            changes["name"] = new_name
        if not changes:
            raise click.UsageError("say what is to be changed")
        changed: dict[str, Any] = await workspaces.get(await _id_of(workspaces, name)).update(changes)
        return changed

    _show(_run(server, change), as_json)


@workspace.command("rm", short_help="Remove a workspace with its files.")
@_workspace_argument
@click.option("--snapshot", is_flag=True, help="Keep its files as an archive on the server.")
@_json_option
@with_server
def rm(server: Server, name: str, snapshot: bool, as_json: bool) -> None:
    """Remove WORKSPACE with all of its files. They cannot be had back, unless a snapshot is kept."""

    async def remove(workspaces: Stub) -> dict[str, Any]:
        found = await _id_of(workspaces, name)
        options = [{"snapshot": True}] if snapshot else []
        removed: dict[str, Any] = await workspaces.remove(found, *options)
        return {"id": found, "snapshot": removed["snapshot"]}

    removed = _run(server, remove)
    kept = f"; its files are in {removed['snapshot']}" if removed["snapshot"] else ""
    _print(removed, as_json, f"removed {removed['id']}{kept}")


@workspace.group("files", invoke_without_command=True, short_help="Look into the files of a workspace.")
@click.pass_context
def files(ctx: click.Context) -> None:
    """List, find, search and read the files of a workspace."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@files.command("ls", short_help="List a directory.")
@_workspace_argument
@click.argument("path", default="")
@_json_option
@with_server
def files_ls(server: Server, name: str, path: str, as_json: bool) -> None:
    """List what is in the directory PATH of WORKSPACE, or in all of it."""
    listing = _run(server, lambda workspaces: _asked(workspaces, name, "list", path))
    if as_json:
        click.echo(json_text(listing))
        return
    now = time.time()
    columns = [Column("type"), Column("size", is_number=True), Column("changed"), Column("name")]
    rows = [
        (each["type"], str(each["size"]), ago(now - each["lastModified"] / 1000), each["name"])
        for each in listing["entries"]
    ]
    print_table(columns, rows)
    _say_if_cut_off(listing)


@files.command("find", short_help="Find files by name.")
@_workspace_argument
@click.argument("text", metavar="NAME")
@_json_option
@with_server
def files_find(server: Server, name: str, text: str, as_json: bool) -> None:
    """Print the paths of files and directories whose name has NAME in it, or matches it (`*.py`)."""
    found = _run(server, lambda workspaces: _asked(workspaces, name, "find", text))
    if as_json:
        click.echo(json_text(found))
        return
    say(*found["paths"])
    _say_if_cut_off(found)


@files.command("search", short_help="Search in files.")
@_workspace_argument
@click.argument("query")
@click.option("--glob", "globs", metavar="PATTERN", multiple=True, help="Files to look in, such as *.py.")
@click.option("--limit", type=int, default=200, show_default=True, help="How many lines at most.")
@click.option("--regexp", is_flag=True, help="QUERY is a regular expression.")
@_json_option
@with_server
def files_search(
    server: Server, name: str, query: str, globs: tuple[str, ...], limit: int, regexp: bool, as_json: bool
) -> None:
    """Print lines with QUERY in them; upper case counts only where QUERY has some."""
    options = {"glob": list(globs), "limit": limit, "regexp": regexp}
    found = _run(server, lambda workspaces: _asked(workspaces, name, "search", query, options))
    if as_json:
        click.echo(json_text(found))
        return
    say(*(f"{each['path']}:{each['line']}: {each['text']}" for each in found["matches"]))
    _say_if_cut_off(found)


@files.command("read", short_help="Print a file.")
@_workspace_argument
@click.argument("path")
@_json_option
@with_server
def files_read(server: Server, name: str, path: str, as_json: bool) -> None:
    """Print the file PATH of WORKSPACE: as it is in a pipe, and without control characters on a terminal."""
    read = _run(server, lambda workspaces: _asked(workspaces, name, "read", path))
    content = read["content"]
    if as_json:
        encoding = "utf-8" if isinstance(content, str) else "base64"
        shown = content if isinstance(content, str) else base64.b64encode(content).decode()
        click.echo(json_text({**read, "content": shown, "encoding": encoding}))
    elif not sys.stdout.isatty():
        sys.stdout.buffer.write(content.encode() if isinstance(content, str) else content)
    elif isinstance(content, str):
        say(*content.splitlines())
    else:
        raise click.ClickException("this file is no text: write it to a file or a pipe")


async def _asked(workspaces: Stub, name: str, method: str, *arguments: object) -> dict[str, Any]:
    files_there: Any = workspaces.get(await _id_of(workspaces, name)).files()
    answer: dict[str, Any] = await getattr(files_there, method)(*arguments)
    return answer


def _run(server: Server, work: Callable[[Stub], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with server.connected() as client:
            return await work(client.api.workspaces())

    return asyncio.run(connected())


async def _id_of(workspaces: Stub, name: str) -> str:
    if _ID.fullmatch(name):
        return name
    found = [each["id"] for each in await workspaces.list() if each["name"] == name]
    if len(found) != 1:
        what = (
            "there are several workspaces of this name: give an id" if found else "there is no such workspace"
        )
        raise NotFoundError(f"{what} (see 'rpcshare workspace ls')")
    return str(found[0])


async def _given(workspaces: Stub, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of :func:`_with_resources` that were given, as the server takes them."""
    wanted: dict[str, Any] = {}
    names = ("memory", "cpu", "disk", "timeout")
    resources = {name: given[name] for name in names if given[name] is not None}
    if resources:
        wanted["resources"] = resources
    if given["hosts"]:
        wanted["hosts"] = list(given["hosts"])
    mounts = []
    for mount in given["mounts"]:
        name, separator, other = mount.partition("=")
        if not separator:
            raise click.UsageError("--mount: must be NAME=WORKSPACE")
        mounts.append({"name": name, "workspace": await _id_of(workspaces, other)})
    if mounts:
        wanted["mounts"] = mounts
    return wanted


def _show(info: dict[str, Any], as_json: bool) -> None:
    source, resources = info["source"], info["resources"]
    timeout = "" if resources["timeout"] is None else f", {resources['timeout']:g} s"
    memory, disk = _size(resources["memory"]), _size(resources["disk"])
    limits = f"{memory} memory, {resources['cpu']:g} processors, {disk} disk"
    lines = [
        f"id: {info['id']}",
        f"name: {info['name']}",
        f"status: {info['status']}",
        *([] if source is None else [f"repository: {source['git']} {source['ref'] or ''}".rstrip()]),
        f"limits: {limits}{timeout}",
        f"disk: {_size(info['diskUsed'])}",
        *(f"mount: /mnt/{each['name']} is {each['workspace']}" for each in info["mounts"]),
        *(f"host: {each}" for each in info["hosts"]),
    ]
    _print(info, as_json, *lines)


def _print(value: object, as_json: bool, *lines: str) -> None:
    if as_json:
        click.echo(json_text(value))
    else:
        say(*lines)


def _say_if_cut_off(answer: dict[str, Any]) -> None:
    if answer["truncated"]:
        say("there is more", err=True)


def _cells(info: dict[str, Any], now: float) -> tuple[str, ...]:
    source = "" if info["source"] is None else str(info["source"]["git"])
    made = ago(now - info["createdAt"] / 1000)
    return info["id"], info["name"], info["status"], _size(info["diskUsed"]), made, source


def _size(size: int) -> str:
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{size} B"
