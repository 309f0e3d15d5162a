"""Summaries in the store: when they are due, what they cover, and that only a whole one that is still wanted is ever in force."""

from dataclasses import replace

import pytest

from config.settings import Settings
from sessions import context, lane, lifecycle, summaries, window
from sessions.database import migrate
from sessions.models import Summary
from sessions.scope import OperatorScope
from sessions.summaries import Made, Plan, pair_to_merge, plan, store
from tests.sessions.records import NOW, arrive, claimed, incoming, session_row

SETTINGS = Settings()


def small(limit: int, **agent) -> Settings:
    return Settings.model_validate({"agent": {"context_tokens": limit, **agent}})


def talk(tx, turns, words="", *, answers=True):
    session_id = ""
    for number in range(turns):
        session_id = arrive(tx, incoming(f"question {number} {words}")).session_id
        lane.finish(
            tx,
            claimed(tx, session_id),
            "completed" if answers else "failed",
            NOW,
            answer=f"answer {number} {words}" if answers else None,
        )
    return session_id


def made(made_from: Plan, text="- notes", **changes):
    return Made(
        **{
            "level": 1,
            "from_position": made_from.from_position,
            "to_position": made_from.to_position,
            "content": text,
            "tokens": 5,
            "made_by": "digest",
        }
        | changes
    )


def in_force(tx, session_id):
    return window.summaries_of(tx, session_id)


# when they are due


def test_nothing_is_due_below_ten_messages(tx):
    """Nine messages are not summarised, however long they are."""
    session_id = talk(tx, 4, "word " * 2000)
    assert plan(tx, session_id, SETTINGS) is None


def test_nothing_is_due_while_the_window_is_less_than_70_percent_full(tx):
    """Ten short messages are fine as they are; the same ten in a small window are due."""
    session_id = talk(tx, 6, "some more words here")
    assert plan(tx, session_id, SETTINGS) is None
    assert plan(tx, session_id, small(201)) is not None


@pytest.mark.parametrize(("turns", "covered"), [(5, 3), (10, 7), (12, 8), (20, 14)])
def test_the_oldest_70_percent_are_summarised_by_whole_turns(tx, turns, covered):
    """The newest 30 % at least stay as they were said, and no turn is torn apart."""
    session_id = talk(tx, turns, "word " * 60)
    due = plan(tx, session_id, small(600))
    assert (due.from_position, due.to_position) == (1, covered)
    assert len(due.messages) == 2 * covered
    assert 2 * turns - len(due.messages) >= 0.3 * 2 * turns


def test_more_messages_than_the_model_sees_are_due(tx):
    """So that none is neither seen nor summarised."""
    session_id = talk(tx, 9)
    assert plan(tx, session_id, SETTINGS) is None
    talk(tx, 1)
    assert plan(tx, session_id, SETTINGS) is not None


def test_what_is_waiting_or_being_answered_is_never_summarised(tx):
    """Only messages of turns that have ended are looked at."""
    session_id = talk(tx, 12, "word " * 50)
    running = arrive(tx, incoming("running")).session_id
    claim = claimed(tx, running)
    arrive(tx, incoming("waiting"))
    due = plan(tx, session_id, small(300))
    assert due.to_position < claim.position


def test_the_last_answer_stays_even_if_nothing_was_answered_since(tx):
    """A row of failed turns: the last bot question is not summarised away."""
    session_id = talk(tx, 5, "word " * 30)
    talk(tx, 12, "word " * 30, answers=False)
    due = plan(tx, session_id, small(300))
    assert due is not None
    assert due.to_position == 4


def test_a_conversation_imported_whole_is_done_piece_by_piece(tx):
    """At most a hundred messages at a time, and the plan says that there is more."""
    session_id = talk(tx, 90)
    due = plan(tx, session_id, SETTINGS)
    assert len(due.messages) == 100
    assert due.has_more
    assert store(tx, due, [made(due)], [], NOW)
    rest = plan(tx, session_id, SETTINGS)
    assert rest.from_position == due.to_position + 1
    assert not rest.has_more


@pytest.mark.parametrize("end", [lifecycle.end, None])
def test_only_live_sessions_are_summarised(tx, end):
    """An ended session and one that is not there have nothing due."""
    if end is None:
        assert plan(tx, "01HZZZZZZZZZZZZZZZZZZZZZZZ", SETTINGS) is None
        return
    session_id = talk(tx, 20)
    assert plan(tx, session_id, SETTINGS) is not None
    end(tx, lifecycle.find(tx, session_id, OperatorScope()), "reset", NOW)
    assert plan(tx, session_id, SETTINGS) is None


# storing


def test_a_stored_summary_covers_its_messages_and_leaves_them_as_they_are(tx):
    """Range, version and text are there; the originals are untouched; the next plan begins after it."""
    session_id = talk(tx, 20)
    before = tx.rows("SELECT * FROM messages WHERE session_id = :id ORDER BY id", {"id": session_id})
    due = plan(tx, session_id, SETTINGS)
    assert store(tx, due, [made(due, "- the gist")], [], NOW)
    assert in_force(tx, session_id) == [Summary(1, 1, 1, 14, "- the gist", 5, "digest", NOW)]
    assert session_row(tx, session_id)["summarised_to"] == 14
    assert tx.rows("SELECT * FROM messages WHERE session_id = :id ORDER BY id", {"id": session_id}) == before
    arrive(tx, incoming("next"))
    claim = claimed(tx, session_id)
    assert claim.messages[0].position == 15
    assert [one.content for one in claim.summaries] == ["- the gist"]


def test_a_reset_wins(tx):
    """A summary that comes after the session's end is not stored."""
    session_id = talk(tx, 20)
    due = plan(tx, session_id, SETTINGS)
    lifecycle.end(tx, lifecycle.find(tx, session_id, OperatorScope()), "reset", NOW)
    assert not store(tx, due, [made(due)], [], NOW)
    assert in_force(tx, session_id) == []
    assert session_row(tx, session_id)["summarised_to"] == 0


def test_the_newer_summary_wins(tx):
    """Of two made from the same state, the second to arrive is refused and changes nothing."""
    session_id = talk(tx, 20)
    due = plan(tx, session_id, SETTINGS)
    assert store(tx, due, [made(due, "- first")], [], NOW)
    assert not store(tx, due, [made(due, "- second")], [1], NOW)
    assert [one.content for one in in_force(tx, session_id)] == ["- first"]


def test_an_erased_message_wins(tx):
    """A summary made from a message that was removed meanwhile may tell it: it is not stored."""
    session_id = talk(tx, 20)
    due = plan(tx, session_id, SETTINGS)
    tx.execute("DELETE FROM messages WHERE session_id = :id AND position = 2", {"id": session_id})
    assert not store(tx, due, [made(due)], [], NOW)


def test_new_messages_do_not_matter(tx):
    """People go on talking while a summary is made; it is stored all the same."""
    session_id = talk(tx, 20)
    due = plan(tx, session_id, SETTINGS)
    talk(tx, 2)
    assert store(tx, due, [made(due)], [], NOW)


def test_merged_summaries_stand_for_the_old_ones(tx):
    """The old versions stay in the table, marked with what replaced them, and are no more in force."""
    session_id = talk(tx, 20)
    due = plan(tx, session_id, SETTINGS)
    assert store(tx, due, [made(due, "- one")], [], NOW)
    talk(tx, 20)
    due = plan(tx, session_id, SETTINGS)
    merged = made(due, "- both", level=2, from_position=1)
    assert store(tx, due, [merged], [one.version for one in due.stack], NOW)
    assert [(one.level, one.from_position, one.content) for one in in_force(tx, session_id)] == [
        (2, 1, "- both")
    ]
    rows = tx.rows("SELECT version, replaced_by FROM summaries ORDER BY version")
    assert [(row["version"], row["replaced_by"]) for row in rows] == [(1, 2), (2, None)]


def test_old_versions_do_not_pile_up(tx):
    """The table keeps the last fifty versions of a session and all that are in force."""
    session_id = talk(tx, 20)
    due = plan(tx, session_id, SETTINGS)
    assert store(tx, due, [made(due)], [], NOW)
    for _ in range(70):
        again = summaries.plan_again(tx, session_id, SETTINGS)
        assert store(tx, again, [made(due)], summaries.versions(tx, again), NOW)
    rows = tx.rows("SELECT version, replaced_by FROM summaries WHERE session_id = :id", {"id": session_id})
    assert len(rows) == 50
    assert [row["version"] for row in rows if row["replaced_by"] is None] == [71]


def test_discarding_removes_every_version(tx):
    """Nothing is left of them, and the messages are there to be summarised anew."""
    session_id = talk(tx, 20)
    due = plan(tx, session_id, SETTINGS)
    assert store(tx, due, [made(due)], [], NOW)
    assert summaries.discard(tx, session_id) == 1
    assert tx.rows("SELECT * FROM summaries") == []
    again = plan(tx, session_id, SETTINGS)
    assert (again.from_position, again.to_position) == (due.from_position, due.to_position)
    assert not store(tx, due, [made(due)], [], NOW), "made before the discarding"


# making them anew


def test_making_anew_reads_the_covered_messages_whole(tx):
    """Stretch by stretch, whole turns, all of them and nothing behind the summaries."""
    session_id = talk(tx, 80)
    while (due := plan(tx, session_id, SETTINGS)) is not None:
        assert store(tx, due, [made(due)], [], NOW)
    again = summaries.plan_again(tx, session_id, SETTINGS)
    found, after, pieces = [], 0, 0
    while messages := summaries.stretch(tx, again, after):
        found += messages
        after = messages[-1].position
        pieces += 1
    assert pieces >= 2
    covered = session_row(tx, session_id)["summarised_to"]
    assert [(one.position, one.part) for one in found] == [
        (position, part) for position in range(1, covered + 1) for part in (0, 1)
    ]


def test_what_was_remembered_is_not_believed_after_making_anew(tx):
    """They may reach as far as before, so the session's revision moves."""
    session_id = talk(tx, 20)
    due = plan(tx, session_id, SETTINGS)
    assert store(tx, due, [made(due)], [], NOW)
    before = session_row(tx, session_id)["revision"]
    again = summaries.plan_again(tx, session_id, SETTINGS)
    assert store(tx, again, [made(due, "- anew")], [1], NOW)
    assert session_row(tx, session_id)["revision"] > before
    assert [one.content for one in in_force(tx, session_id)] == ["- anew"]


def test_a_session_without_summaries_has_nothing_to_make_anew(tx):
    """None, as for a session that does not exist."""
    assert summaries.plan_again(tx, talk(tx, 2), SETTINGS) is None
    assert summaries.plan_again(tx, "01HZZZZZZZZZZZZZZZZZZZZZZZ", SETTINGS) is None


def test_sessions_with_summaries_are_listed(tx):
    """In order and page by page."""
    session_id = talk(tx, 20)
    assert summaries.summarised_sessions(tx) == []
    due = plan(tx, session_id, SETTINGS)
    assert store(tx, due, [made(due)], [], NOW)
    assert summaries.summarised_sessions(tx) == [session_id]
    assert summaries.summarised_sessions(tx, after=session_id) == []


# the stack


def stack(*levels, tokens=400):
    return [Made(level, number, number, "x", tokens, "digest") for number, level in enumerate(levels)]


def test_summaries_are_merged_only_when_they_are_too_much():
    """A stack within three eighths of the window stays; one alone is never merged."""
    assert pair_to_merge(stack(1, 1, 1), 4000) is None
    assert pair_to_merge(stack(1), 300) is None
    assert pair_to_merge(stack(1, 1, 1, 1), 4000) == 0
    assert pair_to_merge(stack(*[1] * 7, tokens=5), 4000) == 0


def test_the_least_digested_pair_is_merged_first():
    """So the oldest is not digested anew with each summary."""
    assert pair_to_merge(stack(5, 3, 1, 1), 1000) == 2
    assert pair_to_merge(stack(3, 3, 3, 1), 1000) == 0


def test_a_merge_is_enough_in_the_end():
    """However many there are: merging one pair at a time ends, with few left."""
    left, merges = stack(*[1] * 40), 0
    while (number := pair_to_merge(left, 4000)) is not None:
        pair = left[number : number + 2]
        left[number : number + 2] = [replace(pair[0], level=max(one.level for one in pair) + 1)]
        merges += 1
    assert merges == 37
    assert len(left) == 3


def test_a_summary_is_sealed_like_what_it_tells(tx):
    """What stands in the table is what the store's seal makes of the text."""
    session_id = talk(tx, 20)
    due = plan(tx, session_id, SETTINGS)
    assert store(tx, due, [made(due, "- secret")], [], NOW)
    row = tx.row("SELECT content FROM summaries")
    assert tx.seal.open(row["content"]) == "- secret"


def test_the_migration_applies_to_a_database_that_is_in_use(oldest):
    """Schema 5 with a session, messages and a summary in it: 0006 keeps them and gives the new columns their values."""
    steps = migrate.migrations()
    for step in steps[1:5]:
        migrate.apply(oldest, step, 0)
    oldest.execute(
        "INSERT INTO sessions (id, key, scope, platform, account, channel, status, created_at, last_activity_at)"
        " VALUES ('s', 'k', 'person', 'telegram', 'telegram.main', 'c', 'active', 1, 1)"
    )
    oldest.execute(
        "INSERT INTO messages (session_id, position, part, role, content, created_at)"
        " VALUES ('s', 1, 0, 'user', 'hello', 1)"
    )
    oldest.execute(
        "INSERT INTO summaries (session_id, version, from_position, to_position, content, tokens, made_by, created_at)"
        " VALUES ('s', 1, 1, 1, '- hello', 3, 'digest', 1)"
    )
    migrate.apply(oldest, steps[5], 0)
    row = session_row(oldest, "s")
    assert (row["summarised_to"], row["revision"], row["token_ratio"]) == (0, 0, 1000)
    assert in_force(oldest, "s")[0].content == "- hello"
    oldest.execute("UPDATE messages SET content = 'other'")
    assert session_row(oldest, "s")["revision"] == 1


def test_the_share_is_the_contexts_own():
    """Due at the same point at which the turn asks for it."""
    assert context.DUE_SHARE == 0.7
    assert context.SUMMARY_TOKENS == 500
