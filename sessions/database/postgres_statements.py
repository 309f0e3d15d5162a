"""Statements on one connection to PostgreSQL: each prepared once, those that go together sent together, their rows read back.

Owns the way from a statement and its values to a `Ran`, by the calls of libpq that psycopg exposes (`psycopg.pq`): a cursor for
every statement costs more than all else that a turn does here. What values look like on the way is `postgres_values.py`, waiting
with an end is `postgres_connections.py`. What runs once in a while goes by psycopg's own `execute`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import pq
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.generators import execute, fetch_many, send
from psycopg.pq.abc import PGconn, PGresult

from sessions.database.base import Ran, Row
from sessions.database.postgres_values import PLAIN

MOST_PREPARED: Final = 500
"""More than there are statements. Those whose text varies must not fill the server's memory."""
MOST_TOGETHER: Final = 500
"""Statements on their way at once: what they give waits in memory."""

_Key = tuple[str, tuple[int, ...]]
"""A statement's text and the types of its values: with another type it is prepared once more."""


class _Prepared:
    """A statement that the server knows by a name."""

    __slots__ = ("make_row", "name")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.make_row: Callable[[Sequence[Any]], Row] | None = None
        """Known from the first answer on, which says what the columns are called."""


class _Values(NamedTuple):
    """A statement's values as they travel."""

    oids: tuple[int, ...]
    data: Sequence[Buffer | None]
    formats: Sequence[int] | None
    """None: all as text."""


class Statements:
    """The statements of a connection. For one thread at a time, as the connection itself."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._transformer = Transformer(connection)
        self._prepared: dict[_Key, _Prepared] = {}
        self._named = 0

    def run(self, sql: str, values: Sequence[object] = ()) -> Ran:
        """Run a statement with `$1`, `$2`, … Raises: psycopg.Error."""
        sent = self._encoded(values)
        prepared = self._prepared.get((sql, sent.oids))
        if prepared is None:
            return self._pipelined([(sql, sent)])[0]
        connection = self._connection.pgconn
        connection.send_query_prepared(prepared.name, sent.data, sent.formats)
        results = self._connection.wait(execute(connection))
        return self._read(prepared, _checked(results[0] if results else None))

    def run_together(self, statements: Sequence[tuple[str, Sequence[object]]]) -> list[Ran]:
        """Run them in order without waiting between them. None is run after the first that fails. Raises: psycopg.Error."""
        sent = [(sql, self._encoded(values)) for sql, values in statements]
        ran: list[Ran] = []
        for begin in range(0, len(sent), MOST_TOGETHER):
            ran += self._pipelined(sent[begin : begin + MOST_TOGETHER])
        return ran

    def command(self, sql: str) -> str:
        """Run what ends or begins something; gives what the server says it has done. Raises: psycopg.Error."""
        connection = self._connection.pgconn
        connection.send_query(sql.encode())
        results = self._connection.wait(execute(connection))
        return (_checked(results[0] if results else None).command_status or b"").decode()

    def _pipelined(self, statements: Sequence[tuple[str, _Values]]) -> list[Ran]:
        if len(self._prepared) >= MOST_PREPARED:
            self._connection.execute("DEALLOCATE ALL", prepare=False)
            self._prepared.clear()
        connection = self._connection.pgconn
        new: dict[_Key, _Prepared] = {}
        asked: list[_Key | _Prepared] = []
        """What each answer is about: a statement to be prepared, or one to be run."""
        try:
            connection.enter_pipeline_mode()
            for sql, sent in statements:
                key = sql, sent.oids
                prepared = self._prepared.get(key) or new.get(key)
                if prepared is None:
                    self._named += 1
                    prepared = new[key] = _Prepared(f"palaver{self._named}".encode())
                    connection.send_prepare(prepared.name, sql.encode(), sent.oids)
                    asked.append(key)
                connection.send_query_prepared(prepared.name, sent.data, sent.formats)
                asked.append(prepared)
            connection.pipeline_sync()
            answers = self._connection.wait(_answers(connection, len(asked)))
            if connection.status == pq.ConnStatus.OK:
                connection.exit_pipeline_mode()
        except BaseException:
            connection.finish()  # nobody can tell what would be answered next
            raise
        ran = []
        for number, about in enumerate(asked):
            result = _checked(answers[number] if number < len(answers) else None)
            if isinstance(about, _Prepared):
                ran.append(self._read(about, result))
            else:  # known only now: one that came after a failure was never prepared
                self._prepared[about] = new[about]
        return ran

    def _read(self, prepared: _Prepared, result: PGresult) -> Ran:
        count = result.command_tuples or 0
        if result.status == pq.ExecStatus.COMMAND_OK:
            return Ran(count, [])
        if prepared.make_row is None:
            prepared.make_row = _row_maker(result)
        self._transformer.set_pgresult(result)
        return Ran(count, self._transformer.load_rows(0, result.ntuples, prepared.make_row))

    def _encoded(self, values: Sequence[object]) -> _Values:
        oids: list[int] = []
        data: list[Buffer | None] = []
        for value in values:
            way = PLAIN.get(type(value))
            if way is None:
                return self._encoded_by_psycopg(values)
            oid, encode = way
            oids.append(oid)
            data.append(encode(value))
        return _Values(tuple(oids), data, None)

    def _encoded_by_psycopg(self, values: Sequence[object]) -> _Values:
        """Lists, bytes and what else is rare."""
        data = self._transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        return _Values(tuple(self._transformer.types or ()), data, self._transformer.formats)


def _answers(connection: PGconn, count: int) -> PQGen[list[PGresult]]:
    """The answer to each of a pipeline's statements; fewer if the connection ended before."""
    yield from send(connection)
    answers: list[PGresult] = []
    while len(answers) < count:
        results = yield from fetch_many(connection)
        if not results:
            return answers
        answers.append(results[0])
    yield from fetch_many(connection)  # the end of the pipeline has an answer of its own
    return answers


def _checked(result: PGresult | None) -> PGresult:
    if result is None:
        raise psycopg.OperationalError("the server closed the connection")
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise error_from_result(result)
    return result


def _row_maker(result: PGresult) -> Callable[[Sequence[Any]], Row]:
    names = tuple((result.fname(number) or b"").decode() for number in range(result.nfields))

    def make_row(values: Sequence[Any]) -> Row:
        return dict(zip(names, values, strict=True))

    return make_row
