"""Which Redis a ``redis://`` URL names."""

import re
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

__all__ = ["RedisLocation"]

_DATABASE = re.compile(r"/?|/\d{1,4}")
_CA_FILE = "ca_file"
_PORT = 6379  # the one that is Redis's


class RedisLocation(msgspec.Struct, frozen=True, kw_only=True):
    """A Redis or Valkey server, and how to be let in."""

    host: str
    port: int = _PORT
    database: int = 0
    """Messages know no databases, so it becomes part of their channels' names."""
    username: str | None = None
    password: str | None = None
    is_encrypted: bool = False
    ca_file: str | None = None
    """The certificates that are trusted, in PEM; None: those that the system trusts."""

    @classmethod
    def parse(cls, scheme: str, rest: str) -> Self:
        """Read ``redis:`` or ``rediss:`` (with TLS) and what is behind it.

        That is ``//[[USER]:PASSWORD@]HOST[:PORT][/DB]``, for TLS with ``?ca_file=PATH`` or without.

        Raises:
            ValueError: it makes no sense. The message repeats nothing of it.
        """
        is_encrypted = scheme == "rediss"
        form = f"{scheme}://HOST:PORT/DB"
        try:
            parts = urlsplit(rest)
            port = parts.port
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError:
            raise ValueError(f"not a URL of the form {form}") from None
        if not rest.startswith("//") or not parts.hostname or parts.fragment:
            raise ValueError(f"not a URL of the form {form}; a # in a password is written %23")
        if not _DATABASE.fullmatch(parts.path):
            raise ValueError(f"the database is a number: {form}; a / in a password is written %2F")
        ca_file = options.pop(_CA_FILE, None)
        if options or ca_file == "" or (ca_file and not is_encrypted):
            raise ValueError(f"the one option is of rediss:// URLs: {_CA_FILE}=PATH")
        return cls(
            host=parts.hostname,
            port=_PORT if port is None else port,
            database=int(parts.path.strip("/") or 0),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            is_encrypted=is_encrypted,
            ca_file=ca_file,
        )

    def __str__(self) -> str:
        """Return it without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' * self.is_encrypted}://{host}:{self.port}/{self.database}"

    __repr__ = __str__
