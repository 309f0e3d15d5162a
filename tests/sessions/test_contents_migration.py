"""What migrations 0005 and 0011 make of a database that was in use before them."""

from sessions import contents, lifecycle, statistics
from sessions.database import migrate
from sessions.scope import OperatorScope
from sessions.statistics import Subject
from tests.sessions.records import NOW

EVERYTHING = OperatorScope()


def test_sessions_from_before_keep_what_they_hold(oldest):
    """Sessions stay; a current task becomes the first of its history; no history of changes is made up."""
    tx = oldest
    others = migrate.migrations()[1:]
    for number, task in ((1, "book a table"), (2, None)):
        tx.execute(
            "INSERT INTO sessions (id, key, scope, platform, account, channel, status, current_task, created_at,"
            " last_activity_at) VALUES (:id, :id, 'person', 'p', 'a', 'c', 'active', :task, :now, :now)",
            {"id": f"s{number}", "task": task, "now": NOW},
        )
    for migration in others:
        migrate.apply(tx, migration, 0)
    assert [task.task for task in contents.tasks(tx, "s1", EVERYTHING)] == ["book a table"]
    assert contents.tasks(tx, "s2", EVERYTHING) == []
    busy = lifecycle.find(tx, "s1", EVERYTHING)
    assert (busy.current_task, busy.forked_from) == ("book a table", None)
    assert lifecycle.events(tx, "s1", EVERYTHING) == []
    assert lifecycle.expire(tx, busy, NOW + 1).end_reason == "abandoned"
    assert [task.outcome for task in contents.tasks(tx, "s1", EVERYTHING)] == ["abandoned"]


def test_a_copy_from_before_is_counted_apart(oldest):
    """Migration 0011: what a fork took along leaves the count of what was said, also in the statistics, and the session keeps both."""
    tx = oldest
    *before, last = migrate.migrations()[1:11]
    for migration in before:
        migrate.apply(tx, migration, 0)
    for session, origin, count in (("s1", None, 2), ("s2", "s1", 3)):
        tx.execute(
            "INSERT INTO sessions (id, key, scope, platform, account, channel, status, message_count, forked_from,"
            " created_at, last_activity_at) VALUES (:id, :id, 'person', 'p', 'a', 'c', 'active', :count, :origin, :now, :now)",
            {"id": session, "count": count, "origin": origin, "now": NOW},
        )
        for number in range(count):
            turn = None if origin and number < 2 else f"{session}-{number}"
            tx.execute(
                "INSERT INTO messages (session_id, position, part, role, content, turn_id, created_at)"
                " VALUES (:id, :number, 0, 'user', 'x', :turn, :now)",
                {"id": session, "number": number, "turn": turn, "now": NOW},
            )
    migrate.apply(tx, last, 0)
    counts = tx.rows("SELECT message_count, copied_count FROM sessions ORDER BY id")
    assert [tuple(row.values()) for row in counts] == [(2, 0), (1, 2)]
    assert lifecycle.find(tx, "s2", EVERYTHING).message_count == 3
    assert statistics.read(tx, EVERYTHING, Subject(), NOW).messages == 3
