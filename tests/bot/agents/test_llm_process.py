"""The fake model as a process of its own, as process tests and by-hand tries use it."""

import asyncio
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest

from bot.agents.llm.agent import LlmAgent
from config.settings import AgentSettings
from tests.fakes.toolbox import RecordingToolbox, drive, make_context


@pytest.fixture
async def url() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.llm", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()
        await asyncio.sleep(0)  # lets the pipe's transport close


async def test_speaks_and_obeys_from_outside(url: str) -> None:
    """The runnable fake answers, fails when told over HTTP, and tells in its journal what the model saw."""
    agent = LlmAgent(AgentSettings(model="openai:fake", base_url=f"{url}/v1"), environ={}, retry_base_s=0.01)
    try:
        async with aiohttp.ClientSession() as client:
            await client.post(f"{url}/_control", json={"fail_next": "500", "times": 2})
            events = await drive(agent, make_context("hello"), RecordingToolbox())
            assert events[-1].text == "echo: hello [2 messages]"
            async with client.get(f"{url}/_journal") as response:
                journal = await response.json()
            assert [(entry["fault"], entry["outcome"]) for entry in journal] == [
                ("500", "failed"),
                ("500", "failed"),
                (None, "whole"),
            ]
            assert journal[-1]["messages"][-1] == {"role": "user", "text": "hello", "calls": []}
            await client.post(
                f"{url}/_control", json={"clear": True, "chaos": 1.0, "faults": ["401"], "seed": 1}
            )
            async with client.get(f"{url}/_journal") as response:
                assert await response.json() == []
    finally:
        await agent.close()
