"""The keys that objects are encrypted with, and the file that they are kept in."""

import base64
import binascii
import hashlib
import logging
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["EncryptionKey", "KeyFileError", "KeyRing"]

logger = logging.getLogger(__name__)

KEY_SIZE = 32  # bytes: AES-256

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class KeyFileError(ValueError):
    """A key file that cannot be used. The message names file and line, and never what is there."""


class EncryptionKey:
    """A key and the name by which objects refer to it."""

    def __init__(self, secret: bytes, key_id: str | None = None) -> None:
        """Take 32 bytes, and an id of up to 64 letters, digits, ``.``, ``_`` and ``-``.

        Without an id the key is named by a hash of it, so that it may move within its file.

        Raises:
            ValueError: one of them is something else.
        """
        if len(secret) != KEY_SIZE:
            raise ValueError(f"a key is {KEY_SIZE} bytes")
        if key_id is None:
            key_id = hashlib.sha256(b"rpcshare key id:" + secret).hexdigest()[:16]
        elif not _ID.fullmatch(key_id):
            raise ValueError("a key's id is 1 to 64 letters, digits, dots, dashes and underscores")
        self.id = key_id
        self.cipher = AESGCM(secret)

    def __repr__(self) -> str:
        return f"EncryptionKey(id={self.id!r})"


class KeyRing:
    """The keys of a store: the first encrypts, all decrypt.

    A nonce is 96 random bits, so a key is good for 2³² objects (NIST SP 800-38D section 8.3); then,
    or when it may be known to others, put a new one in front.
    """

    def __init__(self, keys: Sequence[EncryptionKey]) -> None:
        """Take at least one key.

        Raises:
            ValueError: there is none, or two have the same id.
        """
        if not keys:
            raise ValueError("there is no key")
        self.keys = tuple(keys)
        self.first = keys[0]
        self._by_id = {key.id: key for key in keys}
        if len(self._by_id) < len(keys):
            raise ValueError("two keys have the same id")

    def find(self, key_id: str) -> EncryptionKey | None:
        """Return the key that has this id, or None."""
        return self._by_id.get(key_id)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file with a key a line: the base64 of 32 bytes, with ``ID:`` in front or without.

        Empty lines and those that begin with ``#`` are comments. One key can be made with
        ``openssl rand -base64 32``.

        Raises:
            KeyFileError: the file cannot be read, or a line of it holds no key.
        """
        try:
            mode = path.stat().st_mode
            lines = path.read_text("ascii").splitlines()
        except OSError as exc:
            raise KeyFileError(f"cannot read {path}: {exc.strerror}") from exc
        except UnicodeDecodeError:
            raise KeyFileError(f"{path} holds something else than keys: it is not ASCII") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            logger.warning("%s is open to other users than its owner; chmod 600 would close it", path)
        keys: list[EncryptionKey] = []
        for number, line in enumerate(map(str.strip, lines), start=1):
            if line and not line.startswith("#"):
                keys.append(_parse(path, number, line))
                if any(key.id == keys[-1].id for key in keys[:-1]):
                    raise KeyFileError(f"{path}, line {number}: a key above has the same id")
        if not keys:
            raise KeyFileError(f"{path} holds no key")
        return cls(keys)


def _parse(path: Path, number: int, line: str) -> EncryptionKey:
    key_id, colon, text = line.rpartition(":")
    try:
        secret = base64.b64decode(text.strip(), validate=True)
        return EncryptionKey(secret, key_id.strip() if colon else None)
    except binascii.Error:
        reason = "not base64"
    except ValueError as exc:
        reason = str(exc)
    raise KeyFileError(f"{path}, line {number}: {reason}")
