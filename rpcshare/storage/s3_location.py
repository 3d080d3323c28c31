"""Which bucket an ``s3://`` URL names, and how to speak to whoever serves it."""

import re
from collections.abc import Callable, Mapping
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

__all__ = ["S3Location"]

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_PREFIX = re.compile(r"[\x20-\x7e]*")
_LONGEST_PREFIX = 256  # of the 1,024 characters that a key may have


class S3Location(msgspec.Struct, frozen=True, kw_only=True):
    """A place for objects. Credentials are no part of it: they come from the usual chain of AWS."""

    bucket: str
    prefix: str = ""
    """What every key in the bucket begins with: empty, or ending with a slash."""
    endpoint_url: str | None = None
    """Where the store listens; None: AWS."""
    region: str | None = None
    """None: what the environment or AWS's own configuration file says."""
    path_style: bool | None = None
    """Whether the bucket is in the path of a request or in its host name. None: in the path if there
    is an ``endpoint_url``."""
    timeout: float = 15.0
    """Seconds that an operation may take, with all of its attempts; more for a large body."""
    attempt_timeout: float = 3.5
    """Seconds that one attempt may take. Well below 5, so that requests which hang when the store
    comes back have been repeated 5 s later."""
    connections: int = 50
    """How many requests may be under way at once."""

    @classmethod
    def parse(cls, rest: str) -> Self:
        """Read the part of the URL behind ``s3:``, ``//BUCKET/PREFIX?OPTION=VALUE&…``.

        Raises:
            ValueError: it makes no sense. The message repeats nothing of it.
        """
        try:
            parts = urlsplit(rest)
            options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            raise ValueError("not a URL of the form s3://BUCKET/PREFIX?OPTION=VALUE") from None
        if "@" in parts.netloc:
            raise ValueError("an s3:// URL holds no credentials; give them as AWS_ACCESS_KEY_ID and so on")
        if not rest.startswith("//") or not _BUCKET.fullmatch(parts.netloc) or parts.fragment:
            raise ValueError("s3:// needs the name of a bucket behind it: s3://BUCKET/PREFIX")
        prefix = unquote(parts.path).strip("/")
        if not _PREFIX.fullmatch(prefix) or len(prefix) > _LONGEST_PREFIX:
            raise ValueError(f"the prefix of an s3:// URL is at most {_LONGEST_PREFIX} ASCII characters")
        settings: dict[str, object] = {}
        for name, value in options:
            if name not in _OPTIONS or name in settings:
                raise ValueError(f"an s3:// URL has these options, each at most once: {', '.join(_OPTIONS)}")
            settings[name] = _OPTIONS[name](name, value)
        return msgspec.convert(
            {"bucket": parts.netloc, "prefix": f"{prefix}/" if prefix else "", **settings}, cls
        )

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def _text(name: str, value: str) -> str:
    if not value:
        raise ValueError(f"{name} in an s3:// URL must not be empty")
    return value


def _url(name: str, value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError(f"{name} in an s3:// URL must be an http(s) URL, without credentials or query")
    return value


def _flag(name: str, value: str) -> bool:
    flags = {"true": True, "false": False}
    if value.lower() not in flags:
        raise ValueError(f"{name} in an s3:// URL must be true or false")
    return flags[value.lower()]


def _seconds(name: str, value: str) -> float:
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", value) or float(value) == 0:
        raise ValueError(f"{name} in an s3:// URL must be a number of seconds")
    return float(value)


def _count(name: str, value: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,3}", value):
        raise ValueError(f"{name} in an s3:// URL must be a whole number from 1 to 9999")
    return int(value)


_OPTIONS: Mapping[str, Callable[[str, str], object]] = {
    "endpoint_url": _url,
    "region": _text,
    "path_style": _flag,
    "timeout": _seconds,
    "attempt_timeout": _seconds,
    "connections": _count,
}
