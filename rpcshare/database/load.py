"""How long a database takes for its statements; where there is tracing, a span for each."""

from __future__ import annotations

from collections import defaultdict
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Final

from rpcshare.latencies import Latencies
from rpcshare.tracing import Tracing

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine, ExceptionContext

__all__ = ["DatabaseLoad"]

_OPERATIONS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "WITH"})
_BEGAN: Final = "rpcshare_began"


class DatabaseLoad:
    """The statements of a database, by what they begin with. Neither they nor their values are kept."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self._tracing = tracing
        self._lock = Lock()  # SQLite's statements are run by several threads
        self.operations: defaultdict[str, Latencies] = defaultdict(Latencies)
        """The times of each operation, by its name in lower case."""

    def watch(self, engine: Engine) -> None:
        """Measure what ``engine`` is given from now on."""
        from sqlalchemy import event  # noqa: PLC0415 -- whoever has an engine has imported it

        event.listen(engine, "before_cursor_execute", self._begin)
        event.listen(engine, "after_cursor_execute", self._end)
        event.listen(engine, "handle_error", self._fail)

    def _begin(
        self,
        _connection: object,
        _cursor: object,
        statement: str,
        _values: object,
        context: object,
        _many: bool,
    ) -> None:
        name = statement.lstrip()[:6].split(None, 1)[0].upper() if statement.strip() else ""
        operation = name.lower() if name in _OPERATIONS else "other"
        span = None
        if self._tracing is not None:
            span = self._tracing.begin_client(f"database {operation}", {"db.operation.name": operation})
        setattr(context, _BEGAN, (operation, perf_counter(), span))

    def _end(
        self,
        _connection: object,
        _cursor: object,
        _statement: str,
        _values: object,
        context: object,
        _many: bool,
    ) -> None:
        self._ended(context, None)

    def _fail(self, context: ExceptionContext) -> None:
        self._ended(context.execution_context, context.original_exception)

    def _ended(self, context: object, error: BaseException | None) -> None:
        began = getattr(context, _BEGAN, None)
        if began is None:  # it has failed before it was begun: there is no connection
            self.operations["connect"].add(0.0, has_failed=True)
            return
        delattr(context, _BEGAN)
        operation, began_at, span = began
        with self._lock:
            self.operations[operation].add(perf_counter() - began_at, has_failed=error is not None)
        if span is not None and self._tracing is not None:
            if error is not None:
                self._tracing.failed(span, type(error).__name__)
            span.end()
