"""`palaver people show`, `block`, `unblock`, `operator` and `member`: what they print and change, and when they refuse."""

import json

import pytest

from bot.policy import decide
from config.settings import AccessSettings
from sessions import people
from tests.bot.house import inbound
from tests.sessions.records import NOW, incoming


def ada(tx):
    return people.meet(tx, incoming(), NOW)


def test_a_person_is_shown(console):
    """By id, by name or by username; with role and identities; as JSON too."""
    person = console.change(ada)
    for word in (person.id, "Ada", "ada", "user-1"):
        code, shown, _ = console.run("people", "show", word)
        assert code == 0
        assert f"person      {person.id}" in shown
        assert "role        member" in shown
        assert "known as    telegram user-1 @ada" in shown
    told = json.loads(console.run("people", "show", "Ada", "--json")[1])
    assert (told["id"], told["role"]) == (person.id, "member")
    assert console.run("people", "show", "nobody")[0] == 1


@pytest.mark.parametrize(
    ("commands", "role"),
    [
        (["block"], "blocked"),
        (["block", "unblock"], "member"),
        (["operator"], "operator"),
        (["operator", "unblock"], "operator"),
        (["operator", "member"], "member"),
        (["operator", "block"], "blocked"),
        (["block", "operator"], "operator"),
    ],
)
def test_roles_change(console, commands, role):
    """Each command leads to its role from any other; unblocking changes nobody who is not blocked."""
    console.change(ada)
    for command in commands:
        code, told, _ = console.run("people", command, "Ada")
        assert code == 0
        assert told.startswith("Ada (")
    assert console.change(ada).role == role
    assert f"role        {role}" in console.run("people", "show", "Ada")[1]


def test_a_change_of_role_is_written_down(console):
    """Who got which role stands in the audit, a command that changed nothing does not."""
    person = console.change(ada)
    for command in ("block", "block", "unblock"):
        console.run("people", command, "Ada")
    rows = console.change(lambda tx: tx.rows("SELECT actor, action, subject FROM audit ORDER BY id"))
    assert [tuple(row.values()) for row in rows] == [
        ("operator", "role_blocked", person.id),
        ("operator", "role_member", person.id),
    ]


def test_who_is_blocked_is_declined_as_blocked(console):
    """The role decides, whatever the lists of the settings allow."""
    console.change(ada)
    console.run("people", "block", "Ada")
    assert decide(inbound(), console.change(ada), AccessSettings(), 1000).reason == "blocked"


def test_a_change_beside_a_running_daemon(console):
    """While a daemon owns the file a change ends with 69 and says what to do; a server's is made. Looking works on both."""
    console.change(ada)
    code, _, said = console.beside_a_daemon("people", "block", "Ada")
    if console.is_sqlite:
        assert code == 69
        assert "database" in said
        assert len(said.strip().splitlines()) == 2
    else:
        assert (code, said) == (0, "")
    assert console.beside_a_daemon("people", "show", "Ada")[0] == 0
    assert console.change(ada).role == ("member" if console.is_sqlite else "blocked")


def test_an_unknown_or_ambiguous_person_is_refused(console):
    """Nobody by that name ends with 1, several with 2 and their ids."""
    console.change(ada)
    console.change(lambda tx: people.meet(tx, incoming(user_id="user-2", username="ada2"), NOW))
    assert console.run("people", "block", "Grace")[0] == 1
    code, _, said = console.run("people", "block", "Ada")
    assert code == 2
    assert "2 people fit Ada" in said
