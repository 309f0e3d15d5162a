"""Other projects' session stores, in a process and an environment of their own; nothing of Palaver is imported here.

Reads a line of JSON for each thing to do and answers with one: `turns` (people side by side, so many turns each), `fill` (a
conversation of so many messages), `one` (single turns in it), `read` (its last 20 messages, so many times). Each store is used
the way its own documentation shows, with its own defaults. Started by `benchmarks/peers.py`.
"""

import asyncio
import ctypes
import importlib.metadata
import json
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

QUESTION, ANSWER, LAST = "q" * 200, "a" * 600, 20


class Store(Protocol):
    async def turn(self, chat: str) -> None:
        """Append the question, read the last 20 messages, append the answer."""

    async def fill(self, chat: str, messages: int) -> None: ...

    async def read(self, chat: str) -> int:
        """Read the last 20 messages; gives how many there were."""


class OpenAi:
    """OpenAI Agents SDK: `SQLiteSession`, one object kept for each chat."""

    package = "openai-agents"

    def __init__(self, file: str) -> None:
        from agents import SQLiteSession

        self._make = lambda chat: SQLiteSession(chat, file)
        self._sessions: dict[str, Any] = {}

    def _session(self, chat: str) -> Any:
        if chat not in self._sessions:
            self._sessions[chat] = self._make(chat)
        return self._sessions[chat]

    async def turn(self, chat: str) -> None:
        session = self._session(chat)
        await session.add_items([{"role": "user", "content": QUESTION}])
        await session.get_items(limit=LAST)
        await session.add_items([{"role": "assistant", "content": ANSWER}])

    async def fill(self, chat: str, messages: int) -> None:
        for first in range(0, messages, 1000):
            await self._session(chat).add_items(
                [
                    {
                        "role": ("user", "assistant")[number % 2],
                        "content": QUESTION if number % 2 == 0 else ANSWER,
                    }
                    for number in range(first, min(messages, first + 1000))
                ]
            )

    async def read(self, chat: str) -> int:
        return len(await self._session(chat).get_items(limit=LAST))


class LangGraph:
    """LangGraph: `AsyncSqliteSaver`, the messages as one channel of the checkpoint; a checkpoint after each side's message."""

    package = "langgraph-checkpoint-sqlite"

    def __init__(self, file: str) -> None:
        self._file = file
        self._saver: Any = None

    async def _open(self) -> Any:
        if self._saver is None:
            import aiosqlite
            from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

            self._saver = AsyncSqliteSaver(await aiosqlite.connect(self._file))
            await self._saver.setup()
        return self._saver

    async def _put(self, config: Any, messages: list[Any], step: int) -> Any:
        from langgraph.checkpoint.base import empty_checkpoint

        version = str(step)
        checkpoint = {
            **empty_checkpoint(),
            "channel_values": {"messages": messages},
            "channel_versions": {"messages": version},
        }
        saver = await self._open()
        return await saver.aput(config, checkpoint, {"source": "loop", "step": step}, {"messages": version})

    async def turn(self, chat: str) -> None:
        from langchain_core.messages import AIMessage, HumanMessage

        saver = await self._open()
        config: Any = {"configurable": {"thread_id": chat, "checkpoint_ns": ""}}
        found = await saver.aget_tuple(config)
        messages = list(found.checkpoint["channel_values"]["messages"]) if found else []
        config = found.config if found else config
        messages.append(HumanMessage(QUESTION))
        config = await self._put(config, messages, len(messages))
        messages.append(AIMessage(ANSWER))
        await self._put(config, messages, len(messages))

    async def fill(self, chat: str, messages: int) -> None:
        from langchain_core.messages import AIMessage, HumanMessage

        config: Any = {"configurable": {"thread_id": chat, "checkpoint_ns": ""}}
        said = [
            HumanMessage(QUESTION) if number % 2 == 0 else AIMessage(ANSWER) for number in range(messages)
        ]
        await self._put(config, said, messages)

    async def read(self, chat: str) -> int:
        found = await (await self._open()).aget_tuple(
            {"configurable": {"thread_id": chat, "checkpoint_ns": ""}}
        )
        return len(found.checkpoint["channel_values"]["messages"][-LAST:])


class Agno:
    """agno: `AsyncSqliteDb`, a session and a run for each turn, stored once the answer is there."""

    package = "agno"

    def __init__(self, file: str) -> None:
        from agno.db.base import SessionType
        from agno.db.sqlite import AsyncSqliteDb

        self._type = SessionType.AGENT
        self._db = AsyncSqliteDb(db_file=file)
        self._runs: dict[str, int] = {}

    async def turn(self, chat: str) -> None:
        from agno.session.agent import AgentSession

        session = await self._db.get_session(chat, self._type, runs_limit=LAST // 2)
        if session is None:
            session = AgentSession(
                session_id=chat, agent_id="bench", user_id=chat, created_at=int(time.time())
            )
            await self._db.upsert_session(session)
        session.get_messages(limit=LAST)
        await self._db.upsert_run(self._run(chat), chat, chat, self._next(chat))
        await self._db.upsert_session(session)

    async def fill(self, chat: str, messages: int) -> None:
        for _ in range(messages // 2):
            if chat not in self._runs:
                await self.turn(chat)
            else:
                await self._db.upsert_run(self._run(chat), chat, chat, self._next(chat))

    async def read(self, chat: str) -> int:
        session = await self._db.get_session(chat, self._type, runs_limit=LAST // 2)
        return len(session.get_messages(limit=LAST))

    def _next(self, chat: str) -> int:
        self._runs[chat] = self._runs.get(chat, -1) + 1
        return self._runs[chat]

    @staticmethod
    def _run(chat: str) -> Any:
        from agno.models.message import Message
        from agno.run.agent import RunOutput
        from agno.run.base import RunStatus

        return RunOutput(
            run_id=str(uuid.uuid4()),
            agent_id="bench",
            session_id=chat,
            content=ANSWER,
            messages=[Message(role="user", content=QUESTION), Message(role="assistant", content=ANSWER)],
            status=RunStatus.completed,
        )


STORES: dict[str, Callable[[str], Any]] = {"openai": OpenAi, "langgraph": LangGraph, "agno": Agno}


def fsyncs() -> int:
    library = os.environ.get("PALAVER_TEST_SHIM")
    if library is None:
        return 0
    counter = ctypes.CDLL(library).fsync_count
    counter.restype = ctypes.c_long
    return int(counter())


async def turns(store: Store, prefix: str, people: int, count: int) -> dict[str, float]:
    times: list[float] = []

    async def person(number: int) -> None:
        for _ in range(count):
            began = time.perf_counter()
            await store.turn(f"{prefix}{number}")
            times.append(1000 * (time.perf_counter() - began))

    before, began, cpu = fsyncs(), time.perf_counter(), time.process_time()
    await asyncio.gather(*(person(number) for number in range(people)))
    done = people * count
    return {
        "rate": done / (time.perf_counter() - began),
        "p50": sorted(times)[done // 2],
        "cpu": 1000 * (time.process_time() - cpu) / done,
        "fsyncs": (fsyncs() - before) / done,
    }


async def timed(work: Callable[[], Awaitable[object]], times: int) -> dict[str, list[float]]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        took.append(1000 * (time.perf_counter() - began))
    return {"ms": took}


async def obey(store: Store, order: dict[str, Any]) -> Any:
    match order["do"]:
        case "turns":
            return await turns(store, order["prefix"], order["people"], order["count"])
        case "fill":
            return await store.fill(order["chat"], order["messages"])
        case "one":
            return await timed(lambda: store.turn(order["chat"]), order["times"])
        case "read":
            return await timed(lambda: store.read(order["chat"]), order["times"])
    raise ValueError(order)


async def main() -> None:
    name, file = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    kind: Any = STORES[name]
    store = kind(file)
    answers.write(json.dumps({"version": importlib.metadata.version(kind.package)}) + "\n")
    answers.flush()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer: Any = {"result": await obey(store, json.loads(line))}
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)  # libraries' threads do not all end by themselves
