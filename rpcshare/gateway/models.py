"""The models of the settings: a table ``[models.NAME]`` for each provider."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from rpcshare.errors import ErrorCode, ShareError

__all__ = ["Model", "ModelCatalogue", "ModelLimits", "ModelTable", "Prices", "WireKind", "parse_model_tables"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_MAX_MODELS = 500  # of one table
_LONGEST = 200  # characters of a model's name

# What a million tokens cost that are written to the cache of a prompt, where a table does not say, as a
# multiple of what others cost (https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching).
_CACHE_WRITE = 1.25


class WireKind(StrEnum):
    """How a provider is spoken to."""

    OPENAI = "openai"
    """Chat completions."""
    ANTHROPIC = "anthropic"
    """Messages."""


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a model, in dollars for a million tokens."""

    input: float
    output: float
    cache_read: float | None = None
    """None: as ``input``, which is no less than it is."""
    cache_write: float | None = None
    """None: as ``input``, and a quarter more with ``kind = "anthropic"``."""


class ModelLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What fits a model, in tokens: agents compact their sessions in time."""

    context: int
    output: int


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    kind: WireKind
    base_url: str
    models: list[str]
    key_env: str | None = None
    key_file: str | None = None
    key_header: str | None = None
    prices: dict[str, Prices] = {}
    limits: dict[str, ModelLimits] = {}
    stream_usage: bool = True


class ModelTable(msgspec.Struct, frozen=True, kw_only=True):
    """One table ``[models.NAME]``, checked."""

    name: str
    kind: WireKind
    base_url: str
    """Without a slash at its end. It may have a query, as Azure's have."""
    models: tuple[str, ...]
    key_env: str | None = None
    """The variable of the server's environment that has the key."""
    key_file: str | None = None
    """The file that has it. Neither: it is in the vault of who runs the agent."""
    key_header: str | None = None
    """The header that it is sent in; None: the usual one of the wire."""
    prices: Mapping[str, Prices] = {}
    limits: Mapping[str, ModelLimits] = {}
    stream_usage: bool = True
    """Whether streams are asked for their usage: a few providers refuse ``stream_options``."""

    @property
    def is_key_in_vault(self) -> bool:
        """Whether each caller brings an own key."""
        return self.key_env is None and self.key_file is None

    def url(self, path: str) -> str:
        """Return the URL of a path of the wire, such as ``/messages``."""
        parts = urlsplit(self.base_url)
        return parts._replace(path=parts.path.rstrip("/") + path).geturl()

    def model(self, model_id: str) -> Model | None:
        """Return one of its models by the provider's own name, or None."""
        return Model(self, model_id) if model_id in self.models else None


class Model(msgspec.Struct, frozen=True):
    """A model that agents may use."""

    table: ModelTable
    id: str
    """As the provider calls it."""

    @property
    def name(self) -> str:
        """``NAME/model``, as callers and opencode ask for it. ``model`` may have slashes of its own."""
        return f"{self.table.name}/{self.id}"

    @property
    def prices(self) -> Prices | None:
        """What it costs; None where the table does not say."""
        return self.table.prices.get(self.id)

    @property
    def cache_prices(self) -> tuple[float, float]:
        """What a million tokens cost that are read from, and written to, the cache of a prompt."""
        prices = self.prices
        if prices is None:
            return 0.0, 0.0
        factor = _CACHE_WRITE if self.table.kind is WireKind.ANTHROPIC else 1.0
        read = prices.input if prices.cache_read is None else prices.cache_read
        write = prices.input * factor if prices.cache_write is None else prices.cache_write
        return read, write


class ModelCatalogue:
    """All models of a server."""

    def __init__(self, tables: Sequence[ModelTable]) -> None:
        self.tables = tuple(tables)
        self._by_name = {table.name: table for table in tables}

    def names(self) -> list[str]:
        """Return ``NAME/model`` of each; the first is the default."""
        return [f"{table.name}/{model}" for table in self.tables for model in table.models]

    def table(self, name: str) -> ModelTable | None:
        """Return a table by its name."""
        return self._by_name.get(name)

    def find(self, wanted: str | None) -> Model:
        """Return the model that is called so; None: the default.

        Raises:
            ShareError: INVALID_ARGUMENT: there is none of this name, and the message names those that there
                are; or there are none at all.
        """
        names = self.names()
        if not names:
            message = "model: this server has none: its settings have no table [models.NAME]"
            raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
        name, _, model_id = (names[0] if wanted is None else wanted).partition("/")
        table = self._by_name.get(name)
        found = None if table is None else table.model(model_id)
        if found is None:
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            message = f"model: must be one of {', '.join(names[:20])}{more}"
            raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
        return found

    def opencode_providers(self, port: int) -> dict[str, object]:
        """Return ``provider`` of opencode's configuration, for a sandbox with the gateway on ``port``.

        Its providers are called as the tables are, so opencode's names of models are those of :meth:`names`.
        Where a table has the name of a provider that opencode knows (``anthropic``), ``whitelist`` hides the
        models that are not in the table. Put the names of the tables into ``enabled_providers`` beside it,
        or opencode offers models of its own, which nothing in a sandbox reaches.
        """
        return {table.name: _opencode_provider(table, port) for table in self.tables}


def _opencode_provider(table: ModelTable, port: int) -> dict[str, object]:
    packages = {WireKind.OPENAI: "@ai-sdk/openai-compatible", WireKind.ANTHROPIC: "@ai-sdk/anthropic"}
    return {
        "npm": packages[table.kind],
        "name": table.name,
        # The gateway looks at no key; the packages want one.
        "options": {"baseURL": f"http://127.0.0.1:{port}/{table.name}/v1", "apiKey": "none-in-here"},
        "whitelist": list(table.models),
        "models": {model: _opencode_model(Model(table, model)) for model in table.models},
    }


def _opencode_model(model: Model) -> dict[str, object]:
    described: dict[str, object] = {"name": model.id}
    if (limits := model.table.limits.get(model.id)) is not None:
        described["limit"] = {"context": limits.context, "output": limits.output}
    if (prices := model.prices) is not None:
        read, write = model.cache_prices
        described["cost"] = {
            "input": prices.input,
            "output": prices.output,
            "cache_read": read,
            "cache_write": write,
        }
    return described


def parse_model_tables(tables: object) -> tuple[ModelTable, ...]:
    """Return the tables ``models`` of a configuration file.

    Whether a key is there is not looked at: that is a matter of the start
    (:func:`rpcshare.gateway.keys.fault_of_key`).

    Raises:
        ValueError: a table is wrong; the message names it, and what in it.
    """
    if isinstance(tables, tuple) and all(isinstance(each, ModelTable) for each in tables):
        return tables
    if not isinstance(tables, Mapping):
        raise ValueError("must be tables: [models.NAME]")  # noqa: TRY004 -- as of all settings
    return tuple(_table(str(name), table) for name, table in tables.items())


def _table(name: str, table: object) -> ModelTable:
    if not _NAME.fullmatch(name):
        raise ValueError(f"[models.{name[:40]}]: a name has up to 32 letters a-z, digits, - and _")
    if not isinstance(table, Mapping):
        raise ValueError(f"models.{name}: must be a table: [models.{name}]")  # noqa: TRY004 -- likewise
    spelled = {str(key).replace("-", "_"): value for key, value in table.items()}
    try:
        given = msgspec.convert(spelled, _Table)
    except msgspec.ValidationError as exc:
        raise ValueError(f"[models.{name}]: {_reason(exc)}") from None
    try:
        return _checked(name, given)
    except ValueError as exc:
        raise ValueError(f"[models.{name}]: {exc}") from None


def _checked(name: str, given: _Table) -> ModelTable:
    if given.key_env is not None and given.key_file is not None:
        raise ValueError("key_env and key_file: give one of them")
    for field, value in (("key_env", given.key_env), ("key_file", given.key_file)):
        if value is not None and (not value.strip() or "\0" in value):
            raise ValueError(f"{field}: must not be empty; leave it out for keys of the vault")
    if given.key_header is not None and not _HEADER.fullmatch(given.key_header):
        raise ValueError("key_header: must be the name of a header")
    _check_models(given.models)
    _check_figures(given)
    return ModelTable(
        name=name,
        kind=given.kind,
        base_url=_base_url(given.base_url),
        models=tuple(given.models),
        key_env=given.key_env,
        key_file=given.key_file,
        key_header=given.key_header,
        prices=given.prices,
        limits=given.limits,
        stream_usage=given.stream_usage,
    )


def _check_figures(given: _Table) -> None:
    for field, named in (("prices", given.prices), ("limits", given.limits)):
        if unknown := sorted(set(named) - set(given.models)):
            raise ValueError(f"{field}: {unknown[0]} is none of its models")
    for model, prices in given.prices.items():
        if not all(_is_price(each) for each in msgspec.structs.astuple(prices) if each is not None):
            raise ValueError(f"prices.{model}: must be dollars for a million tokens, from 0")
    for model, limits in given.limits.items():
        if not 0 < limits.output <= limits.context:
            raise ValueError(f"limits.{model}: must be tokens, and output no more than context")


def _check_models(models: Sequence[str]) -> None:
    if not models:
        raise ValueError("models: name at least one")
    if len(models) > _MAX_MODELS:
        raise ValueError(f"models: at most {_MAX_MODELS}")
    for model in models:
        if not 0 < len(model) <= _LONGEST or not model.isprintable() or model != model.strip():
            raise ValueError(f"models: each has 1 to {_LONGEST} printable characters, without spaces around")
    if len(set(models)) < len(models):
        raise ValueError("models: one is there twice")


def _base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("base_url: must be a URL") from None
    if parts.scheme not in ("https", "http") or not host or not url.isprintable() or " " in url:
        raise ValueError("base_url: must be a URL such as https://api.example/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url: must have no user and no password: the key has a setting of its own")
    if parts.fragment:
        raise ValueError("base_url: must have no fragment")
    return parts._replace(path=parts.path.rstrip("/")).geturl()


def _is_price(price: float) -> bool:
    return math.isfinite(price) and price >= 0


def _reason(exc: Exception) -> str:
    """Return what is wrong, with the key at which it is; msgspec quotes no value of a wrong type."""
    message, _, path = str(exc).partition(" - at `$")
    key = re.sub(r"\[\.\.\.\]", "", path.strip("`").lstrip("."))
    message = (
        message.replace("Object ", "").replace("Expected ", "must be ").replace("contains ", "there is an ")
    )
    return f"{key}: {message}" if key else message
