"""`palaver quarantine …` and the removal of what is old: what is shown, how it is escaped, what is dropped."""

import json

from sessions import inbox, quarantine
from tests.sessions.records import ACCOUNT, DAY, NOW

NASTY = b'{"text": "\x1b[2J\x1b]0;owned\x07 \xff \xe2\x80\xae txt.exe", "a": "\xc3\xa4"}'


def set_aside(console, raw=NASTY, reason="no sender\x1b[31m", at=NOW):
    return console.change(lambda tx: inbox.quarantine(tx, ACCOUNT, raw, reason, at))


def test_what_is_set_aside_is_listed_beside_a_daemon(console):
    """Number, time, account, size and reason of each, the latest first; nothing of what it says."""
    console.change(lambda tx: None)
    assert console.run("quarantine", "list") == (0, "Nothing.\n", "")
    first, second = set_aside(console), set_aside(console, b"x", "not JSON")
    code, listed, _ = console.beside_a_daemon("quarantine", "list")
    assert code == 0
    lines = listed.splitlines()
    assert [line.split()[0] for line in lines] == [str(second), str(first)]
    assert lines[0].endswith(f"{ACCOUNT}  1 bytes  not JSON")
    assert "owned" not in listed
    assert [one["id"] for one in json.loads(console.run("quarantine", "list", "--json")[1])] == [
        second,
        first,
    ]
    assert len(console.run("quarantine", "list", "--limit", "1")[1].splitlines()) == 1


def test_what_is_shown_cannot_drive_a_terminal(console):
    """Escape sequences, control characters, invalid bytes and turned text are shown as what they are; letters stay."""
    number = set_aside(console)
    code, shown, _ = console.beside_a_daemon("quarantine", "show", str(number))
    assert code == 0
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert r'{"text": "\x1b[2J\x1b]0;owned\x07 \xff \u202e txt.exe", "a": "ä"}' in shown
    assert r"no sender\x1b[31m" in shown
    told = json.loads(console.run("quarantine", "show", str(number), "--json")[1])
    assert (told["account"], "\x1b[2J" in told["raw"]) == (ACCOUNT, True)


def test_a_large_one_is_shown_by_its_beginning(console):
    """A megabyte does not flood the screen; how much is left out is said."""
    number = set_aside(console, b"x" * 300_000)
    shown = console.run("quarantine", "show", str(number))[1]
    assert len(shown) < 30_000
    assert "280000 bytes more" in shown


def test_one_is_dropped(console):
    """Dropping removes that one alone, and no file's under a running daemon; an unknown number ends with 1."""
    first, second = set_aside(console), set_aside(console)
    if console.is_sqlite:
        assert console.beside_a_daemon("quarantine", "drop", str(first))[0] == 69
    assert console.run("quarantine", "drop", str(first))[:2] == (0, f"{first} is removed.\n")
    assert console.run("quarantine", "drop", str(first))[0] == 1
    assert console.run("quarantine", "show", str(first))[0] == 1
    assert console.run("quarantine", "show", str(second))[0] == 0


def test_old_ones_are_removed_in_small_batches(console):
    """After thirty days, the oldest first, only so many at a time."""
    for age in (31, 40, 50, 29):
        set_aside(console, at=NOW - age * DAY)
    removed = [console.change(lambda tx: quarantine.forget_old(tx, NOW, batch=2)) for _ in range(3)]
    assert removed == [2, 1, 0]
    left = console.change(quarantine.latest)
    assert [update.received_at for update in left] == [NOW - 29 * DAY]
