"""The commands, each imported when it is asked for, and how their failures are reported.

A command returns an exit status or None for success, and raises what went wrong. Users see one line
and a status (:mod:`rpcshare.cli.exit_status`).
"""

import gc
import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from rpcshare.auth.secret_files import SecretFileError
from rpcshare.cli.exit_status import ExitStatus
from rpcshare.cli.terminal import printable
from rpcshare.compiled import core
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.version import __version__

__all__ = ["CommandGroup"]

# The command NAME is the function of that name in rpcshare/cli/NAME.py, with _ for -.
_COMMANDS = {
    "serve": "Run the server.",
    "login": "Sign in to a server, for all commands.",
    "logout": "Forget the token of a server.",
    "whoami": "Print who you are to a server.",
    "profiles": "List the servers you have signed in to; choose one.",
    "push": "Share a session from a file.",
    "pull": "Fetch a share.",
    "watch": "Follow a share as it changes.",
    "rm": "Delete a share.",
    "ls": "List your shares.",
    "search": "Find words in your shares.",
    "access": "Show or change who may read a share, and until when.",
    "credentials": "Print the id, URL and secret of a session's share.",
    "keys": "Create, list, rotate and revoke API keys.",
    "vault": "Keep keys of third parties on the server.",
    "workspace": "Make and look into what agents work on.",
    "agent": "Start agents, follow them, answer what they ask.",
    "users": "List users, set roles and limits, disable accounts, claim shares.",
    "organizations": "List organizations, set their limits, show what was done.",
    "token": "Sign tokens with the server's own key; revoke signed tokens.",
    "certs": "Create certificates for your server and its clients.",
    "completion": "Print or install completion for a shell.",
    "config": "Check a server's settings, and show where they come from.",
    "doctor": "Verify the shares in a store, and repair them.",
    "reindex": "Build the search index again.",
    "export": "Back up shares as files.",
    "restore": "Restore shares from a backup.",
    "migrate": "Copy a store into another.",
    "import-bucket": "Import the shares of an older deployment.",
}

_EXIT_STATUS = "Exit status: 0 done, 1 failure, 2 wrong usage, 4 not signed in, 5 not found, 130 interrupted."

# What a server or a store says, as a status.
_STATUS_OF_CODE = {
    ErrorCode.INVALID_ARGUMENT: ExitStatus.USAGE,
    ErrorCode.UNAUTHORIZED: ExitStatus.NOT_SIGNED_IN,
    ErrorCode.SHARE_NOT_FOUND: ExitStatus.NOT_FOUND,
    ErrorCode.SHARE_GONE: ExitStatus.NOT_FOUND,
    ErrorCode.WORKSPACE_NOT_FOUND: ExitStatus.NOT_FOUND,
    ErrorCode.SESSION_NOT_FOUND: ExitStatus.NOT_FOUND,
}


class CommandGroup(click.Group):
    """The top of the command line."""

    def __init__(self) -> None:
        super().__init__(
            "rpcshare",
            callback=_show_help,
            invoke_without_command=True,
            help="Share coding-agent sessions live from your own server.",
            epilog=_EXIT_STATUS,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        message = f"%(prog)s, version %(version)s ({core()})"
        click.version_option(__version__, prog_name="rpcshare", message=message)(self)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the names of all commands, in the order of the help text."""
        return list(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 -- click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import the command ``cmd_name``; None if there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        # Nothing that is imported is garbage: the collector would look at all of it again and again.
        gc.disable()
        try:
            command: click.Command = getattr(importlib.import_module(f"rpcshare.cli.{name}"), name)
        finally:
            gc.enable()
        _document_exit_status(command)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 -- click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,  # noqa: ANN401 -- click's signature
    ) -> Any:  # noqa: ANN401 -- click's signature
        """Run the command line and exit, as click's does but for how failures are told."""
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except Exception as exc:
            if not standalone_mode:
                raise
            status, line = _explain(exc)
            click.echo(f"rpcshare: {printable(line)}", err=True)
            sys.exit(status)
        if not standalone_mode:
            return result
        sys.exit(result if isinstance(result, int) else 0)


def _document_exit_status(command: click.Command) -> None:
    command.epilog = _EXIT_STATUS
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        _document_exit_status(each)


@click.pass_context
def _show_help(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _explain(exc: Exception) -> tuple[int, str]:  # noqa: PLR0911 -- one sentence for each kind of failure
    """Return the exit status and the line that tell a user of ``exc``."""
    match exc:
        case click.UsageError():
            path = exc.ctx.command_path if exc.ctx else "rpcshare"
            return ExitStatus.USAGE, f"{exc.format_message()} (see '{path} --help')"
        case click.ClickException():
            return exc.exit_code, exc.format_message()
        case click.Abort():
            return ExitStatus.INTERRUPTED, "interrupted"
        case ShareError():
            return _STATUS_OF_CODE.get(exc.code, ExitStatus.FAILURE), exc.message
        case SecretFileError():
            return ExitStatus.FAILURE, str(exc)
        case OSError():
            place = f"{exc.filename}: " if exc.filename else ""
            return ExitStatus.FAILURE, f"{place}{exc.strerror or exc}"
        case ModuleNotFoundError() if not (exc.name or "").startswith("rpcshare"):
            return (
                ExitStatus.FAILURE,
                f"this command needs the package {exc.name}: pip install 'rpcshare[server]'",
            )
        case _:
            # The text of an exception that nobody foresaw may hold anything, a secret included.
            frame = traceback.extract_tb(exc.__traceback__)[-1]
            return (
                ExitStatus.FAILURE,
                f"internal error: {type(exc).__name__} at {frame.filename}:{frame.lineno}",
            )
