"""Breaks the store on purpose, one promise at a time, and asks whether the tests notice: `python -m tests.sessions.mutations`.

Each break is made in a copy of the tree, in which the tests of `sessions/` then run on SQLite until the first fails, or those of
PostgreSQL for what is done there alone. A break that nobody notices is a gap in the tests, and ends this script with 1. Arguments
choose breaks by words of their names.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("adapters", "bot", "config", "sessions", "tests", "pyproject.toml")
LIMIT_S = 600


# The quick ones first.
TESTS = (
    *(
        f"tests/sessions/test_{name}.py"
        for name in ("inbox", "outbox", "lifecycle", "keys", "people", "history")
    ),
    "tests/conformance/test_database.py",
    "tests/sessions/test_isolation.py",
    "tests/sessions/test_sqlite.py",
    "tests/sessions/test_machine.py",
)


@dataclass(frozen=True)
class Break:
    """What is taken out, where, and what stands there instead."""

    name: str
    file: str
    old: str
    new: str
    tests: Sequence[str] = TESTS


MACHINE = ("tests/sessions/test_machine.py",)
HOT = ("tests/sessions/test_hot.py",)
POSTGRESQL = (
    "tests/sessions/test_postgres_statements.py",
    "tests/sessions/test_queue.py",
    "tests/conformance/test_database.py",
    "tests/sessions/test_postgres.py",
    "tests/sessions/test_postgres_races.py",
    "tests/sessions/test_postgres_connections.py",
    "tests/sessions/test_postgres_line.py",
)

BREAKS = (
    # durability
    Break(
        "callers are told before the commit",
        "database/sqlite.py",
        '            connection.execute("COMMIT")\n        except',
        "            for one in batch:\n"
        "                one.future.get_loop().call_soon_threadsafe(lambda one=one: one.future.set_result(one.result))\n"
        '            connection.execute("COMMIT")\n        except',
    ),
    Break(
        "the commit is dropped",
        "database/sqlite.py",
        'connection.execute("COMMIT")\n        except',
        'connection.execute("ROLLBACK")\n        except',
    ),
    Break(
        "commits do not wait for fsync",
        "database/sqlite.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = NORMAL",
    ),
    Break(
        "commits do not wait for fsync, and nobody looks at the setting",
        "database/sqlite.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = NORMAL",
        ("tests/sessions/test_sqlite.py::test_an_acknowledgement_waits_for_fsync",),
    ),
    Break(
        "a failing operation's half stays",
        "database/sqlite.py",
        '            connection.execute("ROLLBACK TO operation")\n',
        "            pass\n",
    ),
    Break(
        "each write commits alone",
        "database/sqlite.py",
        "LARGEST_BATCH: Final = 500",
        "LARGEST_BATCH: Final = 1",
    ),
    Break(
        "a batch that lost its transaction is not run again",
        "database/sqlite.py",
        "                    self._commit(connection, [operation])\n",
        "                    operation.error = _translate(error, self.path)\n",
    ),
    Break(
        "no lock on the file",
        "database/sqlite_file.py",
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
    ),
    # once, in order, one at a time
    Break(
        "the inbox's unique key is gone",
        "database/migrations/0001_spine.sql",
        "    UNIQUE (account, channel, message_id)\n",
        "    CHECK (1 = 1)\n",
    ),
    Break(
        "the channel is no part of a message's identity",
        "inbox.py",
        "AND channel = :channel AND message_id = :id",
        "AND message_id = :id AND :channel = :channel",
    ),
    Break(
        "the fence of results is gone",
        "lane.py",
        " error_ref = :ref WHERE id = :id AND session_id = :session AND epoch = :epoch AND status = 'running'",
        " error_ref = :ref WHERE id = :id AND epoch <> -:epoch",
    ),
    Break(
        "the fence of results looks at the status alone",
        "lane.py",
        " error_ref = :ref WHERE id = :id AND session_id = :session AND epoch = :epoch AND status = 'running'",
        " error_ref = :ref WHERE id = :id AND epoch <> -:epoch AND status = 'running'",
    ),
    Break(
        "the fence of steps is gone",
        "lane.py",
        "    if row is None:\n        raise StaleClaim(claim.turn_id)\n",
        "",
    ),
    Break("a claim does not move the epoch", "lane.py", "epoch = epoch + 1", "epoch = epoch + 0"),
    Break(
        "recovery of turns is gone",
        "lane.py",
        "UPDATE turns SET status = 'queued' WHERE status = 'running'",
        "UPDATE turns SET status = 'queued' WHERE status = 'walking'",
    ),
    Break("the lane has no order", "lane.py", "ORDER BY t.position LIMIT 1", "ORDER BY t.id DESC LIMIT 1"),
    Break("the lane is not asked who runs", "lane.py", "r.status = 'running'", "r.status = 'walking'"),
    Break(
        "a repeated step counts twice",
        "lane.py",
        "tx.execute(*_inserting_step(tx, claim, step, now)) == 1",
        "tx.execute(*_inserting_step(tx, claim, step, now)) < 2",
    ),
    Break(
        "the conversation shows what came later",
        "lane.py",
        "(position < :position OR (position = :position AND part = 0))",
        "(position < :position + 9)",
    ),
    # replies
    Break(
        "recovery of sends is gone",
        "outbox.py",
        "f\" WHERE state = 'sending' AND state IN",
        "f\" WHERE state = 'walking' AND state IN",
    ),
    Break(
        "a try that failed makes a lost one forgotten",
        "outbox.py",
        "CASE WHEN may_be_out = 1 AND platform_message_id IS NULL THEN 'uncertain' ELSE 'ready' END",
        "'ready'",
    ),
    Break(
        "previews go out as answers",
        "outbox.py",
        '            " AND is_final = 1 ORDER BY id LIMIT :limit"',
        '            " ORDER BY id LIMIT :limit"',
    ),
    Break(
        "chunks have no order",
        "outbox.py",
        "AND is_final = 1 ORDER BY id LIMIT",
        "AND is_final = 1 ORDER BY id DESC LIMIT",
    ),
    Break(
        "a late preview swallows the answer",
        "outbox.py",
        '"is_final = 0" if body is None',
        '"1 = 1" if body is None',
    ),
    Break("what is sent can come back", "outbox.py", "state IN ('ready', 'uncertain')", "state <> 'sending'"),
    # people and their sessions
    Break(
        "a person's scope shows everybody's",
        "scope.py",
        "{alias}.person_id = :scope_person AND",
        "{alias}.person_id IS NOT NULL AND :scope_person = :scope_person AND",
    ),
    Break("a channel's scope shows its members' own", "scope.py", "{alias}.person_id IS NULL AND", ""),
    Break("deleted sessions are shown", "scope.py", "<> 'deleted')", "<> 'gone')"),
    Break(
        "a key forgets the account",
        "keys.py",
        "[scope, account, channel, thread]",
        "[scope, channel, thread]",
    ),
    Break(
        "the clean-up takes sessions that wait",
        "cleanup.py",
        "t.status IN ('queued', 'running'))",
        "t.status IN ('walking'))",
    ),
    Break(
        "a remembered end is believed whatever changed",
        "lane.py",
        "        or recent.revision != state.revision\n",
        "",
        HOT,
    ),
    Break(
        "summaries are remembered that were made anew since",
        "lane.py",
        "(recent.revision, recent.since) == (state.revision, state.summarised_to)",
        "recent.since == state.summarised_to",
        HOT,
    ),
    Break(
        "a live session may be doubled by a move",
        "lifecycle.py",
        "if other is not None and other.id != session.id:  # somebody",
        "if False:  # somebody",
        MACHINE,
    ),
    # PostgreSQL
    Break(
        "what follows a failure is taken for prepared",
        "database/postgres_statements.py",
        "prepared = new[key] = _Prepared(",
        "prepared = self._prepared[key] = new[key] = _Prepared(",
        POSTGRESQL,
    ),
    Break(
        "what is deferred at the end is dropped",
        "database/postgres.py",
        '            tx.settle()\n            try:\n                done = connection.statements.command("COMMIT")',
        '            try:\n                done = connection.statements.command("COMMIT")',
        POSTGRESQL,
    ),
    Break(
        "writes of one key are done side by side",
        "database/postgres.py",
        "chains.setdefault(operation.key, [])",
        "chains.setdefault(f'{operation.key}{len(chains)}', [])",
        POSTGRESQL,
    ),
    Break(
        "a turn begins before one that waits in its lane",
        "inbox.py",
        "if ran[1].count != 1:",
        "if ran[1].count > 1:",
        POSTGRESQL,
    ),
    Break(
        "what may not mix is mixed",
        "database/postgres_line.py",
        "if not operation.may_mix}",
        "if not operation.key}",
        POSTGRESQL,
    ),
    Break(
        "what came after a write that waits aside overtakes it",
        "database/postgres_line.py",
        "self._aside.get(operation.place, staying).append(operation)",
        "staying.append(operation)",
        POSTGRESQL,
    ),
    Break(
        "who got through aside does not come back to the line",
        "database/postgres_line.py",
        "                if operation.error is None:\n                    break",
        "                if operation.error is None:\n                    continue",
        POSTGRESQL,
    ),
    Break(
        "who waits for another node's row holds up the line",
        "database/postgres_line.py",
        "await _in_thread(self._waiters, [operation]",
        "await _in_thread(self._writer, [operation]",
        POSTGRESQL,
    ),
    Break(
        "a held turn is renewed for whoever lost it",
        "queue.py",
        "ON k.msg_id = mine.msg_id AND k.read_ct = mine.read_ct",
        "ON k.msg_id = mine.msg_id",
        POSTGRESQL,
    ),
    Break(
        "a turn leaves the queue by its number alone",
        "queue.py",
        "DELETE FROM turn_queue WHERE msg_id = :id AND read_ct = :count",
        "DELETE FROM turn_queue WHERE msg_id = :id AND :count > 0",
        POSTGRESQL,
    ),
    Break(
        "a turn that is held is taken",
        "queue.py",
        '" AND vt <= clock_timestamp() FOR UPDATE SKIP LOCKED)"',
        '" FOR UPDATE SKIP LOCKED)"',
        POSTGRESQL,
    ),
    Break(
        "nobody is told why there is no connection",
        "database/postgres_connections.py",
        "            one_of.note_failure(error)\n",
        "",
        POSTGRESQL,
    ),
    Break(
        "who waits for another node fails in a batch that is taken apart",
        "database/postgres.py",
        "operation.is_stuck = is_impatient(error)",
        "operation.is_stuck = False",
        POSTGRESQL,
    ),
    Break(
        "dead connections are lent again",
        "database/postgres_connections.py",
        "        self._pool.drain()",
        "        pass",
        POSTGRESQL,
    ),
    Break(
        "what a node gave back is begun anew",
        "lane.py",
        'if about["epoch"] > 1',
        'if about["attempts"] > 1',
        POSTGRESQL,
    ),
    Break(
        "epochs begin anew with a queue that is made anew",
        "queue.py",
        "SELECT clock_timestamp(), epoch,",
        "SELECT clock_timestamp(), 0,",
        POSTGRESQL,
    ),
)


def main(words: Sequence[str]) -> int:
    chosen = [one for one in BREAKS if all(word in one.name for word in words)]
    if failing := _noticed_by(None):
        print(f"the tests do not pass as it is: {failing}")
        return 1
    unnoticed = []
    for one in chosen:
        noticed = _noticed_by(one)
        print(
            f"{'noticed' if noticed else 'NOT NOTICED':<12} {one.name}\n             {noticed or '-'}",
            flush=True,
        )
        if not noticed:
            unnoticed.append(one)
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} breaks noticed")
    return 1 if unnoticed or not chosen else 0


def broken(one: Break) -> str:
    """The file with the break in it. Raises: ValueError if the source has changed so that it no longer fits."""
    text = (ROOT / "sessions" / one.file).read_text(encoding="utf-8")
    if one.old not in text:
        raise ValueError(f"{one.name}: {one.old!r} does not stand in {one.file} any more")
    return text.replace(one.old, one.new)


def _noticed_by(one: Break | None) -> str:
    """The first test that fails on the broken copy (or on a whole one); empty if all pass."""
    with tempfile.TemporaryDirectory(prefix="palaver-mutation-") as name:
        copy = Path(name)
        for entry in COPIED:
            source = ROOT / entry
            if source.is_dir():
                shutil.copytree(source, copy / entry, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / entry)
        if one is not None:
            (copy / "sessions" / one.file).write_text(broken(one), encoding="utf-8")
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-x",
                "-q",
                "--tb=line",
                "--timeout=120",
                "--show-capture=no",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:randomly",
                *(
                    ()
                    if one is not None and one.tests is POSTGRESQL
                    else ("-k", "not postgresql and not postgres")
                ),
                *(one.tests if one is not None else TESTS),
            ],
            cwd=copy,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    found = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode == 1 and found:
        return str(found[0])
    if done.returncode:
        raise SystemExit(f"{one}: the tests did not run\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
