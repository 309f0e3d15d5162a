"""`Transaction` on PostgreSQL: parameters put in place, what was deferred before a statement, and reading in a narrower role.

Several works may share one: `side_by_side` lets their statements travel together. A way to the server and back costs more than
most statements even on one machine, so each work stops at its statement until all others have got as far.

Owns no connection and no end: what begins, commits and repeats a transaction is `postgres.py`; how statements travel is
`postgres_statements.py`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, Protocol

from greenlet import getcurrent, greenlet

from sessions.database import postgres_scopes
from sessions.database.base import Parameters, Ran, Row, Seal, Statement, Transaction
from sessions.database.parameters import in_order, numbered
from sessions.sealing import PLAIN, opener

_NONE: Final[Parameters] = MappingProxyType({})


_Asked = Sequence[tuple[str, Sequence[object]]]
"""Statements as the server takes them, with their values."""


class Way(Protocol):
    """How statements come to the server: `postgres_statements.Statements`, or a work's share of one."""

    def run(self, sql: str, values: Sequence[object] = ()) -> Ran: ...
    def run_together(self, statements: _Asked) -> list[Ran]: ...


class PostgresTransaction:
    """`Transaction` over a connection that is in one, or will be with the first statement."""

    dialect: Literal["postgresql"] = "postgresql"

    def __init__(
        self,
        way: Way,
        seal: Seal = PLAIN,
        reader: str | None = None,
        *,
        begin: str | None = None,
    ) -> None:
        """`reader` is the role that reads on somebody's behalf; `begin` is what begins the transaction, if it is not there yet."""
        self._way = way
        self._deferred: list[tuple[str, Sequence[object]]] = [] if begin is None else [(begin, ())]
        self._reader = reader
        self.seal = seal
        self._open: Callable[[Row], Row] | None = None if seal is PLAIN else opener(seal)

    def execute(self, sql: str, parameters: Parameters = _NONE) -> int:
        return self._run(sql, parameters).count

    def row(self, sql: str, parameters: Parameters = _NONE) -> Row | None:
        rows = self.rows(sql, parameters)
        return rows[0] if rows else None

    def rows(self, sql: str, parameters: Parameters = _NONE) -> list[Row]:
        return self._opened(self._run(sql, parameters).rows)

    def together(self, statements: Sequence[Statement]) -> list[Ran]:
        ran = self._run_all([_in_place(*statement) for statement in statements])
        return [Ran(one.count, self._opened(one.rows)) for one in ran]

    def defer(self, sql: str, parameters: Parameters = _NONE) -> None:
        self._deferred.append(_in_place(sql, parameters))

    def insert_many(self, into: str, row: str, values: Sequence[object], tail: str = "") -> None:
        statement, names = numbered(f"INSERT INTO {into} VALUES {row} {tail}")
        self._run_all([(statement, values[at : at + len(names)]) for at in range(0, len(values), len(names))])

    def narrowed(self, to: Parameters) -> Transaction:
        if self._reader is None:
            return self
        return _Narrowed(self._way, self.seal, self._reader, self._deferred, to)

    def settle(self) -> None:
        """Run what was deferred. Raises: its error."""
        self._run_all([])

    def forget_deferred(self) -> None:
        """What was deferred is not run: whatever it belonged to has failed."""
        self._deferred.clear()

    def side_by_side(self, chains: Sequence[Sequence[Callable[[Transaction], None]]]) -> None:
        """Do several works: those of a chain one after the other, the chains side by side, their statements on the same ways.

        No work sees another of its chain half done, but one of another chain it may. Raises: what the first of them raised; the
        transaction is of no use then.
        """
        here = getcurrent()

        def do(chain: Sequence[Callable[[Transaction], None]]) -> None:
            tx = PostgresTransaction(_Share(here), self.seal, self._reader)
            for work in chain:
                work(tx)
                tx.settle()

        doing = [greenlet(do) for _ in chains]
        try:
            asked = [one.switch(chain) for one, chain in zip(doing, chains, strict=True)]
            while waiting := [
                (one, wanted) for one, wanted in zip(doing, asked, strict=True) if not one.dead
            ]:
                ran = iter(self._run_all([statement for _, wanted in waiting for statement in wanted]))
                doing = [one for one, _ in waiting]
                asked = [one.switch(list(itertools.islice(ran, len(wanted)))) for one, wanted in waiting]
        except BaseException:
            for one in doing:
                one.throw()  # it goes no further
            raise

    def _opened(self, rows: list[Row]) -> list[Row]:
        return rows if self._open is None else [self._open(row) for row in rows]

    def _run(self, sql: str, parameters: Parameters) -> Ran:
        statement = _in_place(sql, parameters)
        return self._run_all([statement])[0] if self._deferred else self._way.run(*statement)

    def _run_all(self, statements: _Asked) -> list[Ran]:
        """Statements, after those that were deferred."""
        before, self._deferred[:] = [*self._deferred], []
        asked = [*before, *statements]
        return self._way.run_together(asked)[len(before) :] if asked else []


class _Share:
    """The way of one of several works: over whoever does them all."""

    def __init__(self, doer: greenlet) -> None:
        self._doer = doer

    def run(self, sql: str, values: Sequence[object] = ()) -> Ran:
        return self.run_together([(sql, values)])[0]

    def run_together(self, statements: _Asked) -> list[Ran]:
        ran: list[Ran] = self._doer.switch(statements)
        return ran


class _Narrowed(PostgresTransaction):
    """The same transaction, read as the role that row security holds."""

    def __init__(
        self,
        way: Way,
        seal: Seal,
        reader: str,
        deferred: list[tuple[str, Sequence[object]]],
        to: Mapping[str, object],
    ) -> None:
        super().__init__(way, seal, reader)
        self._deferred = deferred
        self._narrowing = postgres_scopes.NARROW, postgres_scopes.narrowing(reader, to)

    def defer(self, sql: str, parameters: Parameters = _NONE) -> None:
        self._run(sql, parameters)

    def _run(self, sql: str, parameters: Parameters) -> Ran:
        return self._run_all([_in_place(sql, parameters)])[0]

    def _run_all(self, statements: _Asked) -> list[Ran]:
        """Whatever fails ends the transaction, or goes back to a savepoint: both give the role back."""
        return super()._run_all([self._narrowing, *statements, (postgres_scopes.WIDEN, ())])[1:-1]


def _in_place(sql: str, parameters: Parameters) -> tuple[str, Sequence[object]]:
    """A statement as the server takes it."""
    statement, names = numbered(sql)
    return statement, in_order(names, parameters) if names else ()
