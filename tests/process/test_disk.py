"""The disk is full, or somebody else holds the store: taking in stops, nothing accepted is lost, and it heals by itself."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.counterparties import memory_people
from tests.process.daemon import Daemon, eventually, quick_settings
from tests.process.invariants import check, is_idle, read_rows
from tests.process.talk import Talk

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

SIZE_BYTES = 8 * 1024 * 1024
LOCKED_S = 30 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes; only root can mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def fill(place: Path, *, leave_bytes: int = 0) -> Path:
    """Take all the room there is but so much."""
    ballast = place / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        free = os.statvfs(place)
        file.write(b"\0" * max(0, free.f_bavail * free.f_frsize - leave_bytes))
        file.flush()
    return ballast


def refused(daemon: Daemon) -> bool:
    """The log says that nothing is taken in."""
    events = {line.get("event") for line in daemon.lines()}
    return bool(events & {"gateway.intake_stopped", "gateway.intake_failed"})


@pytest.mark.parametrize("reserve_bytes", [2 * 1024 * 1024, 0])
async def test_disk_full(small_disk: Path, tmp_path: Path, reserve_bytes: int) -> None:
    """No room: nothing new is acknowledged, what was accepted is kept, and with room it goes on by itself.

    With a reserve the intake stops before SQLite has to; without one, SQLite's own refusal must do.
    """
    async with memory_people() as people:
        settings = quick_settings(small_disk / "palaver.db", {"main": people.account()})
        settings["store"] = {"reserve_bytes": reserve_bytes}
        async with Daemon(tmp_path / "daemon", settings) as daemon:
            talk = await Talk.begin(people, 5)
            await daemon.start()
            for chat in talk.chats:
                await talk.say(chat, "delay=1.5 tool=clock")

            async def all_accepted() -> bool:
                return len(read_rows(daemon.database, "SELECT 1 FROM inbox")) == 5

            await eventually(all_accepted, timeout_s=10, what="five accepted")
            ballast = await asyncio.to_thread(fill, small_disk, leave_bytes=reserve_bytes // 2)
            await asyncio.sleep(1.2)  # the room is looked at once a second
            for _ in range(3):
                for chat in talk.chats:
                    await talk.say(chat, is_long=True)

            async def says_so() -> bool:
                return refused(daemon)

            await eventually(says_so, timeout_s=15, what="a word about the disk")
            await asyncio.sleep(2)
            assert (await people.read("state"))["waiting"] > 0, "it acknowledged what it could not store"
            assert daemon.is_running
            assert await daemon.status("/healthz") == 200
            taken = len(read_rows(daemon.database, "SELECT 1 FROM inbox")) if reserve_bytes else None
            if reserve_bytes:
                assert taken == 5, "nothing is taken in"
                # the reserve is for finishing what was accepted
                shown = await talk.shown()
                assert all(len(shown[chat.channel]) == 1 for chat in talk.chats)
            ballast.unlink()
            await talk.wait_answered(daemon, timeout_s=40)
            assert await daemon.stop() == 0
            findings = check(
                daemon.database,
                "memory.main",
                people.platform,
                talk.said,
                await talk.shown(),
                logs=[daemon.log],
                secrets=people.secrets,
            )
            assert findings.violations == []


async def test_killed_with_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """kill -9 while the disk is full, then a start with room: all that was accepted is there and answered."""
    async with memory_people() as people:
        settings = quick_settings(small_disk / "palaver.db", {"main": people.account()})
        settings["store"] = {"reserve_bytes": 0}
        async with Daemon(tmp_path / "daemon", settings) as daemon:
            talk = await Talk.begin(people, 3)
            await daemon.start()
            for chat in talk.chats:
                await talk.say(chat)
            await talk.wait_answered(daemon, timeout_s=10)
            ballast = await asyncio.to_thread(fill, small_disk)
            for chat in talk.chats:
                await talk.say(chat, "tool=clock", is_long=True)
            await asyncio.sleep(1.5)
            daemon.kill()
            ballast.unlink()
            await daemon.start()
            await talk.wait_answered(daemon, timeout_s=30)
            assert await daemon.stop() == 0
            findings = check(
                daemon.database,
                "memory.main",
                people.platform,
                talk.said,
                await talk.shown(),
                logs=[daemon.log],
            )
            assert findings.violations == []


async def test_store_locked_by_another_program(tmp_path: Path) -> None:
    """Somebody holds the database's write lock for some seconds: turns wait, nothing is lost, it goes on by itself."""
    async with memory_people() as people:
        settings = quick_settings(tmp_path / "palaver.db", {"main": people.account()})
        settings["store"] = {"busy_timeout_s": 0.5}
        async with Daemon(tmp_path, settings) as daemon:
            talk = await Talk.begin(people, 5)
            await daemon.start()
            for chat in talk.chats:
                await talk.say(chat, "delay=0.5 tool=clock")
            await asyncio.sleep(0.2)
            with contextlib.closing(sqlite3.connect(daemon.database, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                for chat in talk.chats:
                    await talk.say(chat)
                await asyncio.sleep(LOCKED_S)
                assert not is_idle(daemon.database)
                assert refused(daemon)
                assert any("locked" in str(line.get("reason")) for line in daemon.lines())
                other.execute("ROLLBACK")
            await talk.wait_answered(daemon, timeout_s=40)
            assert await daemon.stop() == 0
            findings = check(
                daemon.database,
                "memory.main",
                people.platform,
                talk.said,
                await talk.shown(),
                logs=[daemon.log],
                secrets=people.secrets,
            )
            assert findings.violations == []
