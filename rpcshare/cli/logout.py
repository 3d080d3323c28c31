"""``rpcshare logout``."""

import click

from rpcshare.cli.connection import checked_url
from rpcshare.cli.exit_status import NotSignedInError
from rpcshare.cli.profile_store import Profiles, Signed, base_of
from rpcshare.cli.terminal import json_text, say

__all__ = ["logout"]


@click.command()
@click.argument("server", metavar="[URL|NAME]", required=False)
@click.option("--all", "all_of_them", is_flag=True, help="Forget all servers.")
@click.option("--json", "as_json", is_flag=True, help="Print the names of the profiles as a JSON list.")
def logout(server: str | None, all_of_them: bool, as_json: bool) -> None:
    """Forget the tokens of a server, or those of the default profile. The tokens themselves stay valid."""
    if server is not None and all_of_them:
        raise click.UsageError("--all and a server exclude each other")
    profiles = Profiles()
    signed = profiles.read()
    names = list(signed.profiles) if all_of_them else _named(signed, server)
    for name in names:
        profiles.remove(name)
    if as_json:
        click.echo(json_text(names))
        return
    for name in names:
        say(f"signed out of {signed.profiles[name].url} (profile {name})")
    default = profiles.read().default
    if default is not None and default != signed.default:
        say(f"the default is now {default}")


def _named(signed: Signed, server: str | None) -> list[str]:
    """Return the names of the profiles that ``server`` stands for."""
    if server is None:
        if signed.default is None:
            several = "name a server (see 'rpcshare profiles')" if signed.profiles else "not signed in"
            raise NotSignedInError(several)
        return [signed.default]
    if server in signed.profiles:
        return [server]
    base = ""
    if "://" in server:
        checked_url(server)
        base = base_of(server)
    found = [name for name, profile in signed.profiles.items() if profile.url == base]
    if not found:
        raise NotSignedInError("not signed in to that server (see 'rpcshare profiles')")
    return found
