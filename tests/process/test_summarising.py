"""kill -9 while a summary is being written: nothing half done is visible, and the next turn's summary is whole."""

import asyncio
import contextlib
import json
import subprocess

import pytest

from tests.fakes.llm import Answer, FakeLlm, Rule
from tests.process.counterparties import memory_people
from tests.process.daemon import SCRIPT, NotReady, clean_environment, eventually, quick_settings
from tests.process.invariants import read_rows
from tests.process.nursery import NurseryDaemon
from tests.process.talk import Talk

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]

IS_SUMMARY = "Bot: "
"""Stands in a transcript only."""


def settings_for(folder, people, llm, server):
    return quick_settings(folder / "palaver.db", {"main": people.account()}, server=server) | {
        "agent": {
            "kind": "llm",
            "model": "openai:fake",
            "base_url": llm.openai_url,
            "summary_timeout_s": 60.0,
        }
    }


async def say(talk, daemon, count):
    for number in range(count):
        chat = talk.chats[0]
        before = len(await talk.people.shown(chat))
        await talk.people.say(chat, f"message {number}, my name is Morwenna")

        async def is_answered(before=before, chat=chat):
            return len(await talk.people.shown(chat)) > before

        try:
            await eventually(is_answered, timeout_s=20, what="the answer")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{daemon.tail()}") from None


async def test_kill_while_the_model_writes(nursery, server, tmp_path):
    """Killed in the middle of the request, the daemon starts again, and the next turn makes the summary."""
    async with FakeLlm().running() as llm, memory_people() as people:
        llm.rules = [Rule(IS_SUMMARY, Answer("- never", fault="hang"))]
        async with NurseryDaemon(nursery, tmp_path, settings_for(tmp_path, people, llm, server)) as daemon:
            talk = await Talk.begin(people, 1)
            await daemon.start()
            await say(talk, daemon, 10)

            async def is_asked():
                return any(IS_SUMMARY in message.text for entry in llm.journal for message in entry.messages)

            await eventually(is_asked, timeout_s=20, what="a request for a summary")
            daemon.kill()
            assert read_rows(daemon.database, "SELECT * FROM summaries") == []
            assert read_rows(daemon.database, "SELECT summarised_to FROM sessions")[0]["summarised_to"] == 0
            llm.rules = [Rule(IS_SUMMARY, Answer("- the person is Morwenna"))]
            await daemon.start()
            await say(talk, daemon, 1)

            async def is_stored():
                return read_rows(daemon.database, "SELECT content, to_position FROM summaries")

            (row,) = await eventually(is_stored, timeout_s=20, what="the summary")
            assert row["content"] == "- the person is Morwenna"
            assert (
                read_rows(daemon.database, "SELECT summarised_to AS n FROM sessions")[0]["n"]
                == row["to_position"]
            )
            assert await daemon.stop() == 0


@pytest.mark.parametrize("side", ["before", "after"])
async def test_kill_at_every_commit_around_a_summary(nursery, server, tmp_path, side):
    """Killed just before or right after each commit of the turn that is summarised: a summary is there whole or not at all."""
    said = tmp_path / "said"
    async with memory_people() as people:
        settings = quick_settings(
            tmp_path / "palaver.db", {"main": people.account()}, server=server, lease_s=1
        )
        async with NurseryDaemon(nursery, tmp_path, settings) as daemon:
            talk = await Talk.begin(people, 1)
            daemon.launch()
            await say(talk, daemon, 9)
            await daemon.stop()
            crashes = 0
            for at in range(1, 7):
                said.unlink(missing_ok=True)
                daemon.launch(CRASH_AT=str(at), CRASH_SIDE=side, CRASH_ONCE=str(said))
                await eventually(daemon.hears, timeout_s=20, what="hearing")
                shown = len(await people.shown(talk.chats[0]))
                said.touch()
                await people.say(talk.chats[0], f"another message {at}, my name is Morwenna")

                async def is_over(shown=shown):
                    return not daemon.is_running or len(await people.shown(talk.chats[0])) > shown

                await eventually(is_over, timeout_s=20, what=f"the crash at commit {at}")

                async def has_died():
                    return not daemon.is_running

                with contextlib.suppress(NotReady):  # what comes after the reply has its commits too
                    await eventually(has_died, timeout_s=2, what="a crash after the reply")
                crashes += not daemon.is_running
                daemon.end()
                (row,) = read_rows(
                    daemon.database,
                    "SELECT summarised_to AS covered, (SELECT MAX(to_position) FROM summaries) AS told FROM sessions",
                )
                assert row["covered"] == (row["told"] or 0), f"half a summary after commit {at}"
            assert crashes >= 4
            daemon.launch()
            await say(talk, daemon, 1)

            async def is_stored():
                return read_rows(daemon.database, "SELECT content FROM summaries WHERE replaced_by IS NULL")

            rows = await eventually(is_stored, timeout_s=20, what="the summary")
            assert "Morwenna" in rows[0]["content"]
            assert await daemon.stop() == 0


async def test_summaries_are_made_anew_by_one_command(nursery, server, tmp_path):
    """`palaver sessions resummarise --all`: refused beside who owns the file, not on a server; new versions are in force."""
    async with memory_people() as people:
        settings = quick_settings(tmp_path / "palaver.db", {"main": people.account()}, server=server)
        async with NurseryDaemon(nursery, tmp_path, settings) as daemon:
            talk = await Talk.begin(people, 1)
            await daemon.start()
            await say(talk, daemon, 10)

            async def is_stored():
                return read_rows(daemon.database, "SELECT version FROM summaries")

            await eventually(is_stored, timeout_s=20, what="the summary")
            command = ("sessions", "resummarise", "--all", "--json", "--config", str(daemon.config))
            beside = await asyncio.to_thread(run_once, tmp_path, *command)
            assert beside.returncode == (69 if server is None else 0), beside.stderr
            assert await daemon.stop() == 0
            done = await asyncio.to_thread(run_once, tmp_path, *command)
            assert done.returncode == 0, done.stderr
            assert list(json.loads(done.stdout).values()) == [1]
            rows = read_rows(
                daemon.database, "SELECT version, replaced_by, content FROM summaries ORDER BY version"
            )
            newest = 2 if server is None else 3
            assert [(row["version"], row["replaced_by"]) for row in rows] == [
                *((version, version + 1) for version in range(1, newest)),
                (newest, None),
            ]
            assert "Morwenna" in rows[-1]["content"]


def run_once(folder, *arguments):
    return subprocess.run(
        [str(SCRIPT), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40,
        cwd=folder,
        env=clean_environment(folder),
        check=False,
    )
