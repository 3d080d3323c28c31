"""``rpcshare profiles``."""

import click

from rpcshare.cli.exit_status import NotSignedInError
from rpcshare.cli.profile_store import Profiles
from rpcshare.cli.terminal import Column, json_text, print_table, say

__all__ = ["profiles"]


@click.command()
@click.option("--default", "chosen", metavar="NAME", help="Make the profile NAME the default.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def profiles(chosen: str | None, as_json: bool) -> None:
    """List the servers you have signed in to, or choose the default one. No token is shown."""
    kept = Profiles()
    if chosen is not None:
        try:
            kept.choose(chosen)
        except KeyError:
            raise NotSignedInError(f"there is no profile {chosen} (see 'rpcshare profiles')") from None
        if not as_json:
            say(f"the default is now {chosen}")
            return
    signed = kept.read()
    if as_json:
        told = [
            {"name": name, "url": profile.url, "subject": profile.subject, "default": name == signed.default}
            for name, profile in signed.profiles.items()
        ]
        click.echo(json_text(told))
    elif signed.profiles:
        columns = [Column(heading) for heading in ("name", "url", "subject", "default", "token")]
        print_table(
            columns,
            (
                (
                    name,
                    profile.url,
                    profile.subject or "",
                    "default" if name == signed.default else "",
                    "keyring" if profile.token is None else "file",
                )
                for name, profile in signed.profiles.items()
            ),
        )
