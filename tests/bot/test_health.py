"""Ready or not: only with proof, and each reason visible."""

import asyncio
import socket
from pathlib import Path

import pytest

from adapters.base import Health
from adapters.memory import MemoryAdapter
from bot.health import DEAF_AFTER_S, HealthCheck, notify_systemd
from config.names import AccountId
from sessions.database.sqlite import SqliteDatabase
from tests.bot.house import SwitchedDatabase
from tests.sessions.stores import lay_sqlite

NOW = 10_000.0
HEARING = Health("hearing", NOW - 5)


class Heard(MemoryAdapter):
    """An adapter whose word on itself a test writes."""

    health_now = HEARING

    def health(self):
        return self.health_now


def heard(health):
    adapter = Heard.alone()
    adapter.health_now = health
    return adapter


@pytest.fixture
async def database(tmp_path):
    database = await SqliteDatabase.open(lay_sqlite(tmp_path / "health.db"))
    yield database
    await database.close()


async def report(database, *healths, is_stopping=False, closed_because=None):
    adapters = {AccountId(f"memory.{number}"): heard(health) for number, health in enumerate(healths)}
    check = HealthCheck(database, adapters, clock=lambda: NOW, closed_because=lambda: closed_because)
    check.is_stopping = is_stopping
    return await check.report()


@pytest.mark.parametrize(
    ("healths", "is_ready", "status", "states"),
    [
        ([HEARING], True, "ready", ["hearing"]),
        ([Health("starting")], False, "not ready", ["starting"]),
        ([Health("refused", None, "token refused")], False, "not ready", ["refused"]),
        ([HEARING, Health("retrying", NOW - 60, "no answer")], True, "degraded", ["hearing", "retrying"]),
        ([Health("hearing")], False, "not ready", ["deaf"]),
        ([Health("hearing", NOW - DEAF_AFTER_S - 1)], False, "not ready", ["deaf"]),
        ([Health("hearing", NOW - DEAF_AFTER_S + 1)], True, "ready", ["hearing"]),
        ([HEARING, Health("hearing", 0.0)], True, "degraded", ["hearing", "deaf"]),
        ([Health("stopped", NOW)], False, "not ready", ["stopped"]),
        ([], False, "not ready", []),
    ],
)
async def test_ready_means_that_somebody_hears(database, healths, is_ready, status, states):
    """At least one account must have proof of hearing; one of several that has none makes the whole degraded."""
    found = await report(database, *healths)
    assert (found.is_ready, found.details["status"], found.details["store"]) == (is_ready, status, "open")
    assert [account["state"] for account in found.details["accounts"].values()] == states


async def test_details_say_since_when_and_why(database):
    """Each account shows how long ago it heard last and what is wrong."""
    found = await report(database, Health("retrying", NOW - 61.24, "connection refused"))
    assert found.details["accounts"] == {
        "memory.0": {"state": "retrying", "last_heard_s_ago": 61.2, "detail": "connection refused"}
    }


async def test_stopping_is_not_ready(database):
    """While stopping it is not ready, whoever hears."""
    found = await report(database, HEARING, is_stopping=True)
    assert (found.is_ready, found.details["status"]) == (False, "stopping")


async def test_a_closed_intake_is_not_ready(database):
    """Where messages are not taken in, nothing is ready whoever hears, and the reason is there."""
    assert (await report(database, HEARING)).details["intake"] == "open"
    found = await report(database, HEARING, closed_because="the disk is nearly full")
    assert (found.is_ready, found.details["status"]) == (False, "not ready")
    assert found.details["intake"] == "closed: the disk is nearly full"


async def test_a_closed_store_is_not_ready(tmp_path):
    """A store that is gone is named, and nothing is ready without it."""
    database = await SqliteDatabase.open(lay_sqlite(tmp_path / "gone.db"))
    await database.close()
    found = await report(database, HEARING)
    assert not found.is_ready
    assert str(found.details["store"]).startswith("failed: ")


async def test_a_store_that_hangs_is_not_waited_for(database):
    """A store that does not answer makes it not ready within seconds, instead of hanging with it."""

    class Hanging(SwitchedDatabase):
        async def read(self, work):
            await asyncio.sleep(30)

    found = await report(Hanging(database), HEARING)
    assert found.details["store"] == "failed: no answer within 3 s"


def test_systemd_is_told(tmp_path, monkeypatch):
    """The word goes to the socket that systemd names; without one, or with a dead one, nothing happens."""
    path = Path("/tmp") / f"palaver-{tmp_path.name}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        try:
            manager.bind(str(path))
            monkeypatch.setenv("NOTIFY_SOCKET", str(path))
            notify_systemd("READY=1")
            manager.settimeout(2)
            assert manager.recv(100) == b"READY=1"
        finally:
            path.unlink(missing_ok=True)
    notify_systemd("STOPPING=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify_systemd("STOPPING=1")
