"""``rpcshare completion``."""

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from rpcshare.cli.terminal import json_text, say

__all__ = ["completion"]

_PROGRAM = "rpcshare"
_VARIABLE = "_RPCSHARE_COMPLETE"  # click's own name for this program's

# Where each shell finds completions of a user: the directory of the XDG Base Directory Specification that
# it is in, with its default, and the path there.
_PLACES = {
    "bash": ("XDG_DATA_HOME", "~/.local/share", "bash-completion/completions/rpcshare"),
    "zsh": ("XDG_DATA_HOME", "~/.local/share", "zsh/site-functions/_rpcshare"),
    "fish": ("XDG_CONFIG_HOME", "~/.config", "fish/completions/rpcshare.fish"),
}


@click.command()
@click.argument("shell", type=click.Choice(list(_PLACES)))
@click.option("--install", is_flag=True, help="Write the script to where the shell looks for it.")
@click.option("--json", "as_json", is_flag=True, help="Print path (with --install) or script as JSON.")
@click.pass_context
def completion(ctx: click.Context, shell: str, install: bool, as_json: bool) -> None:
    r"""Print or install the script that completes commands and options.

    \b
    bash, zsh: eval "$(rpcshare completion bash)"
    fish:      rpcshare completion fish | source
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"this version of click knows no {shell}")
    script = kind(ctx.find_root().command, {}, _PROGRAM, _VARIABLE).source()
    if not install:
        click.echo(json_text({"script": script}) if as_json else script)
        return
    path = _place(shell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script, "utf-8")
    if as_json:
        click.echo(json_text({"path": str(path)}))
        return
    say(f"installed {path}; a new shell uses it")
    if shell == "zsh":
        say(f"if it does not: add 'fpath+=({path.parent})' above compinit in your .zshrc", err=True)


def _place(shell: str) -> Path:
    variable, default, path = _PLACES[shell]
    home = os.environ.get(variable, "")
    return (Path(home) if Path(home).is_absolute() else Path(default).expanduser()) / path
