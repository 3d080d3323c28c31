"""The servers that the user has signed in to: the profiles in the user's configuration directory.

A profile is a name, the URL of a server, and a token for it. One of them is the default. The token is in the
file, which only its owner can read, or in the system's keyring.
"""

import fcntl
import importlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import urlsplit

import click
import msgspec

from rpcshare.auth.authenticator import split_path_key
from rpcshare.cli.exit_status import NotSignedInError

__all__ = ["Profile", "Profiles", "Signed", "base_of", "default_name", "keyring"]

_FILE = "profiles.json"
_KEYRING_SERVICE = "rpcshare"
_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ENDPOINTS = ("/rpc/share", "/rpc")


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A server, and where the token for it is."""

    url: str
    """As :func:`base_of` has it."""
    subject: str | None = None
    token: str | None = None
    """None: it is in the keyring."""

    def __repr__(self) -> str:
        """Leave out the token."""
        return f"Profile({self.url!r})"


class Signed(msgspec.Struct, frozen=True):
    """All profiles, and which of them is the default."""

    default: str | None = None
    profiles: dict[str, Profile] = {}


class Keyring(Protocol):
    """What is used of the package ``keyring``."""

    def get_password(self, service_name: str, username: str) -> str | None: ...
    def set_password(self, service_name: str, username: str, password: str) -> None: ...
    def delete_password(self, service_name: str, username: str) -> None: ...


class Profiles:
    """The file with the profiles.

    Args:
        directory: where it is. [default: ``$XDG_CONFIG_HOME/rpcshare``, or ``~/.config/rpcshare``]
    """

    def __init__(self, directory: Path | None = None) -> None:
        found = directory or _directory()
        self._has_home = found is not None
        self.path = (found or Path()) / _FILE

    def read(self) -> Signed:
        """Return what there is.

        Raises:
            click.ClickException: the file cannot be read, or holds something else.
        """
        if not self._has_home:
            return Signed()
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Signed)
        except (FileNotFoundError, NotADirectoryError):
            return Signed()
        except OSError as exc:
            raise click.ClickException(f"cannot read {self.path}: {exc.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Its message may quote from the file.
            raise click.ClickException(
                f"{self.path} does not hold profiles: move it away, and run 'rpcshare login'"
            ) from None

    def token(self, name: str, profile: Profile) -> str:
        """Return the token of a profile.

        Raises:
            NotSignedInError: it is in a keyring that does not give it.
        """
        if profile.token is not None:
            return profile.token
        ring = keyring()
        why = "there is no keyring"
        if ring is not None:
            try:
                token = ring.get_password(_KEYRING_SERVICE, name)
            except Exception as exc:  # noqa: BLE001 -- each backend has errors of its own
                why = f"the keyring failed ({type(exc).__name__})"
            else:
                if token is not None:
                    return token
                why = "it is no longer there"
        raise NotSignedInError(
            f"the token of profile {name} was kept in the keyring, and {why}: run 'rpcshare login' again"
        )

    def add(self, name: str, profile: Profile, token: str, *, in_keyring: bool, default: bool) -> str | None:
        """Keep a profile, in the place of one of that name; say why a keyring did not take the token.

        Raises:
            click.ClickException: it cannot be kept.
        """
        with self._changing() as signed:
            failure = _put_into_keyring(name, token) if in_keyring else None
            is_in_keyring = in_keyring and failure is None
            if not is_in_keyring:
                _remove_from_keyring(name, signed)
            kept = Profile(profile.url, profile.subject, None if is_in_keyring else token)
            chosen = name if default or signed.default is None else signed.default
            self._write(Signed(chosen, {**signed.profiles, name: kept}))
            return failure

    def choose(self, name: str) -> None:
        """Make a profile the default.

        Raises:
            KeyError: there is none of that name.
            click.ClickException: the choice cannot be kept.
        """
        with self._changing() as signed:
            if name not in signed.profiles:
                raise KeyError(name)
            self._write(Signed(name, signed.profiles))

    def remove(self, name: str) -> None:
        """Forget a profile and its token. The default is then the only one that is left, if only one is.

        Raises:
            KeyError: there is none of that name.
            click.ClickException: it cannot be removed.
        """
        with self._changing() as signed:
            left = {other: profile for other, profile in signed.profiles.items() if other != name}
            if len(left) == len(signed.profiles):
                raise KeyError(name)
            _remove_from_keyring(name, signed)
            default = signed.default
            if default == name:
                default = next(iter(left)) if len(left) == 1 else None
            self._write(Signed(default, left))

    @contextmanager
    def _changing(self) -> Iterator[Signed]:
        """Hold the lock of the file, so that two commands at once both have their way."""
        if not self._has_home:
            raise click.ClickException("this user has no home directory: set XDG_CONFIG_HOME")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise click.ClickException(f"cannot write {self.path}: {exc.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self.read()
        finally:
            os.close(descriptor)

    def _write(self, signed: Signed) -> None:
        """Write the file atomically, readable by its owner alone from the first byte on."""
        path = self.path.resolve()  # a link, as those have who keep their dotfiles elsewhere, stays one
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with open(descriptor, "wb") as file:  # noqa: PTH123 -- a descriptor
                    file.write(msgspec.json.format(msgspec.json.encode(signed), indent=2) + b"\n")
                    file.flush()
                    os.fsync(descriptor)
                draft.replace(path)
            finally:
                with suppress(FileNotFoundError):  # it has taken its place
                    draft.unlink()
        except OSError as exc:
            raise click.ClickException(f"cannot write {self.path}: {exc.strerror}") from None


def keyring() -> Keyring | None:
    """Return the package ``keyring`` if it is installed and has a backend that keeps secrets, else None."""
    try:
        module = importlib.import_module("keyring")
        priority = float(module.get_keyring().priority)
    except Exception:  # noqa: BLE001 -- not installed, or no backend of it works: the file is used
        return None
    return cast("Keyring", module) if priority > 0 else None


def base_of(url: str) -> str:
    """Return how a profile has the URL of a server: without endpoint, key and what else is not the server's.

    Servers are the same if these are equal.
    """
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(scheme)) else f":{parts.port}"
    _, path = split_path_key(parts.path)
    path = path.rstrip("/")
    for endpoint in _ENDPOINTS:
        path = path.removesuffix(endpoint)
    return f"{scheme}://{host}{port}{path.rstrip('/')}"


def default_name(url: str) -> str:
    """Return the name that a profile has unless the user gives one."""
    return base_of(url).partition("://")[2]


def _directory() -> Path | None:
    home = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG Base Directory Specification has relative paths ignored.
    if home and Path(home).is_absolute():
        return Path(home) / "rpcshare"
    try:
        return Path("~/.config/rpcshare").expanduser()
    except RuntimeError:  # a user id without a home, as containers have
        return None


def _put_into_keyring(name: str, token: str) -> str | None:
    """Return why the keyring did not take a token, or None if it did."""
    ring = keyring()
    if ring is None:
        return "there is none"
    try:
        ring.set_password(_KEYRING_SERVICE, name, token)
    except Exception as exc:  # noqa: BLE001 -- each backend has errors of its own
        return type(exc).__name__
    return None


def _remove_from_keyring(name: str, signed: Signed) -> None:
    profile = signed.profiles.get(name)
    if profile is None or profile.token is not None:
        return
    ring = keyring()
    if ring is None:
        raise click.ClickException(f"the token of profile {name} is in the keyring, which is not available")
    try:
        if ring.get_password(_KEYRING_SERVICE, name) is not None:
            ring.delete_password(_KEYRING_SERVICE, name)
    except Exception as exc:  # noqa: BLE001 -- each backend has errors of its own
        raise click.ClickException(
            f"the keyring did not remove the token of profile {name} ({type(exc).__name__})"
        ) from None
