"""`palaver doctor`: what it looks at, what it finds, and that it changes nothing."""

import socket

import pytest

from bot import doctor
from config.settings import Settings
from config.sources import Loaded
from sessions.database.sqlite import SqliteDatabase


def loaded(path, **sections):
    return Loaded(
        Settings.model_validate({"database_url": f"sqlite://{path}", "http": {"port": 0}, **sections}),
        {},
        None,
    )


async def examine(path, **sections):
    return {finding.subject: finding for finding in await doctor.examine(loaded(path, **sections))}


async def test_a_fresh_machine_is_well(tmp_path):
    """Nothing configured, no database yet: all is well, and nothing was made."""
    found = await examine(tmp_path / "palaver.db")
    assert all(finding.is_good for finding in found.values()), found
    assert "will be made at the first start" in found["database"].text
    assert list(tmp_path.iterdir()) == []


async def test_a_sound_database(tmp_path):
    """A database in use is looked at beside its daemon."""
    path = tmp_path / "palaver.db"
    database = await SqliteDatabase.open(path)
    try:
        found = await examine(path)
    finally:
        await database.close()
    assert (found["database"].is_good, found["database"].text) == (True, f"{path} is sound")


@pytest.mark.parametrize("damage", ["text", "hole"])
async def test_a_damaged_database_is_found(tmp_path, damage):
    """A file that is none, or has a hole, is bad, with what to do."""
    path = tmp_path / "palaver.db"
    if damage == "text":
        path.write_bytes(b"this is no database at all, it is a letter" * 100)
    else:
        await (await SqliteDatabase.open(path)).close()
        content = bytearray(path.read_bytes())
        content[4096:16384] = b"\xff" * 12288
        path.write_bytes(bytes(content))
    found = await examine(path)
    assert not found["database"].is_good
    assert found["database"].hint


async def test_a_taken_port_is_found(tmp_path):
    """A port that somebody has is bad, with both explanations."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = await examine(tmp_path / "palaver.db", http={"port": port})
    assert not found["http"].is_good
    assert f"127.0.0.1:{port}" in found["http"].text
    assert "BAD  http" in found["http"].line()


async def test_http_that_is_off_is_not_looked_at(tmp_path):
    """Without the HTTP server there is no port to look at."""
    assert "http" not in await examine(tmp_path / "palaver.db", http={"enabled": False})
