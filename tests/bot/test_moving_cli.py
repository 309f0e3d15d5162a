"""`palaver migrate`, `backup` and `restore` where one end is a server, from outside."""

import json
import subprocess

import pytest

from config.names import AccountId
from sessions import leases, sealing
from sessions.database.postgres import PostgresDatabase
from sessions.database.sqlite import SqliteDatabase
from sessions.leases import LeaseName
from tests import postgres
from tests.process.daemon import SCRIPT, clean_environment
from tests.sessions import records as made
from tests.sessions.conversations import exported, talk

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


@pytest.fixture
def url():
    postgres.skip_without_server()
    with postgres.fresh_database() as found:
        yield found


@pytest.fixture
def run(tmp_path):
    def run(database, *arguments, status=0, stdin="", more={}):
        done = subprocess.run(
            [SCRIPT, *arguments],
            cwd=tmp_path,
            env=clean_environment(tmp_path) | {"PALAVER_DATABASE_URL": database} | more,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    return run


async def filled(path, *, turns=20, waiting=0) -> bytes:
    database = await SqliteDatabase.open(path)
    await database.write(lambda tx: talk(tx, seed=1, turns=turns))
    for number in range(waiting):
        message = made.incoming(
            f"what is {number}+1?", user_id="late", account="terminal.local", platform="terminal"
        )
        await database.write(lambda tx, message=message: made.arrive(tx, message))
    raw = await exported(database)
    await database.close()
    return raw


async def test_a_move_says_what_it_did_and_every_reading_command_goes_on(run, url, tmp_path):
    """Figures for people and for programs; afterwards lists, statistics, search, stories and exports read the server."""
    before = await filled(tmp_path / "old.db", waiting=2)
    said = run(url, "migrate", "--from", "sqlite:old.db", "--to", url, "--json")
    move = json.loads(said)
    counts = {table["table"]: table["rows"] for table in move["tables"]}
    assert counts["messages"] > 20 and move["unfinished_turns"] == 2
    assert all(len(table["checksum"]) == 32 for table in move["tables"])
    assert "is not empty" in run(url, "migrate", "--from", "sqlite:old.db", status=69)
    (tmp_path / "exported").write_text(run(url, "sessions", "export"))
    for line in before.decode().splitlines()[1:]:
        assert line in (tmp_path / "exported").read_text()
    assert "of ada" in run(url, "search", "ada")
    assert (
        json.loads(run(url, "stats", "--json"))["messages"]
        == json.loads(run("sqlite:old.db", "stats", "--json"))["messages"]
    )
    assert len(json.loads(run(url, "sessions", "list", "--json"))) > 1
    assert "received" in run(url, "why", "1-1")
    assert "under row security (" in run(url, "doctor", status=69)  # fsync is off on the tests' server


async def test_turns_that_waited_are_answered_by_the_daemon_at_the_new_place(run, url, tmp_path):
    """What was accepted before the move is answered after it, by a daemon that finds it among the rows."""
    await filled(tmp_path / "old.db", turns=0, waiting=3)
    assert "3 turns to be answered" in run(url, "migrate", "--from", "sqlite:old.db")
    for chats in range(1, 6):  # a chat ends with its input; what waits even then is for the next start
        run(url, "chat", stdin="hello\n/status\n")
        with postgres.connected(url) as connection:
            rows = connection.execute("SELECT status, COUNT(*) FROM turns GROUP BY status").fetchall()
        if rows == [("completed", 3 + chats)]:
            break
    assert rows == [("completed", 3 + chats)]


async def test_a_backup_of_a_server_is_a_database_and_goes_back(run, url, tmp_path):
    """One file, which opens by itself, is restored to an empty server, and over a full one only by force."""
    before = await filled(tmp_path / "old.db")
    run(url, "migrate", "--from", "sqlite:old.db")
    assert "sound; every count and checksum" in run(url, "backup", "copy.db")
    assert "exists already" in run(url, "backup", "copy.db", status=69)
    copy = json.loads(run(url, "backup", "copy.db", "--force", "--json"))
    assert copy["messages"] > 20 and copy["size_bytes"] == (tmp_path / "copy.db").stat().st_size
    database = await SqliteDatabase.open(tmp_path / "copy.db")
    assert await exported(database) == before
    await database.close()
    assert "--force" in run(url, "restore", "copy.db", status=69)
    assert "Gone, of what was there before: " in run(url, "restore", "copy.db", "--force")
    with postgres.fresh_database() as other:
        assert " with " in run(other, "restore", "copy.db")
        assert "ok " in run(other, "verify")
        run(other, "migrate", "--from", other, "--to", "sqlite:back.db")
    assert (tmp_path / "back.db").exists()


async def test_keys_are_not_changed_under_a_running_node(run, url):
    """While a node is there that may not know a new key, no command brings one in, not even by being refused for another reason."""
    node = await PostgresDatabase.open(url)
    session = await node.write(lambda tx: made.arrive(tx).session_id)
    live = LeaseName("live", AccountId("one"))
    lease = await node.write(lambda tx: leases.claim(tx, live, "one", 60_000))
    key = {"PALAVER_STORE__ENCRYPTION_KEYS": json.dumps([sealing.new_key()])}
    for command in (["keys", "rotate"], ["sessions", "pause", session]):
        assert "Stop every node first" in run(url, *command, status=69, more=key)
    run(url, "sessions", "pause", session)  # still without a key
    await node.write(lambda tx: leases.release(tx, lease))
    assert "Stop every node first" in run(url, "keys", "rotate", status=69, more=key), "it is connected"
    await node.close()
    run(url, "keys", "rotate", more=key)
    assert "is empty" in run(url, "sessions", "end", session, status=69)
    run(url, "sessions", "end", session, more=key)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--to", "sqlite:new.db"], 2, "--to needs --from"),
        (["--from", "sqlite:a.db", "--to", "sqlite:b.db"], 2, "one of the two is a file"),
        (["--from", "mysql://x/y"], 2, "--from is no database"),
        (
            ["--from", "sqlite:nowhere.db", "--to", "postgresql://u:hidden-word@127.0.0.1:1/x"],
            69,
            "there is no database at",
        ),
        (["--from", "postgresql://u:hidden-word@127.0.0.1:1/x", "--to", "sqlite:b.db"], 69, "refused"),
    ],
)
def test_what_cannot_be_moved_is_told_in_a_sentence(run, tmp_path, arguments, status, words):
    """Wrong arguments are usage, what is not there is unavailable; no password is shown and no file left."""
    said = run("sqlite:here.db", "migrate", *arguments, status=status)
    assert words in said and "hidden-word" not in said and "Traceback" not in said
    assert not list(tmp_path.glob("b.db*"))


def test_migrate_alone_brings_the_schema_up_to_date(run, url, tmp_path):
    """Without --from it does what it always did, on both databases."""
    assert "is up to date" in run("sqlite:new.db", "migrate")
    assert json.loads(run(url, "migrate", "--json")) == {"is_up_to_date": True}


def test_what_is_checked_on_a_server_is_what_is_said(run, url):
    """`verify` names what must hold in the rows, and speaks of no file where there is none."""
    told = run(url, "verify")
    assert "ok   a session has at most one running turn" in told
    assert "file" not in told
