"""Hints between nodes: heard by everybody, gathered, harmless when they are lost."""

import asyncio

import psycopg
import pytest

from sessions.database.postgres_hints import PostgresHints
from tests import postgres


@pytest.fixture
async def nodes():
    postgres.skip_without_server()
    with postgres.fresh_database() as url:
        pair = PostgresHints(url), PostgresHints(url)
        yield (*pair, url)
        for one in pair:
            await one.close()


async def heard(node, topic: str) -> list[str]:
    """What a node hears until that topic comes."""
    topics = []
    async with asyncio.timeout(10):
        while topic not in topics:
            topics.append(await node.next())
    return topics


async def listening(one, other, word="up") -> None:
    """Until both hear: a hint before that is lost, as it may be."""

    async def insist(topic):
        while True:
            one.hint(topic)
            await asyncio.sleep(0.05)

    telling = asyncio.create_task(insist(word))
    try:
        await asyncio.gather(heard(one, word), heard(other, word))
    finally:
        telling.cancel()


async def test_a_hint_reaches_every_node_once(nodes):
    """What one node hints at comes to all; the same word many times at once comes once."""
    one, other, _ = nodes
    await listening(one, other)
    for _ in range(50):
        one.hint("outbox:telegram.main")
    one.hint("last")
    assert [topic for topic in await heard(other, "last") if topic != "up"] == [
        "outbox:telegram.main",
        "last",
    ]
    assert "outbox:telegram.main" in await heard(one, "last")


async def test_words_beyond_one_notice_are_sent_in_several(nodes):
    """Thousands of words at once all come."""
    one, other, _ = nodes
    await listening(one, other)
    words = [f"turns:{number:030}" for number in range(1000)]
    for word in words:
        one.hint(word)
    assert [topic for topic in await heard(other, words[-1]) if topic != "up"] == words


async def test_lost_connections_come_back(nodes):
    """The server ends every connection: hints are heard again soon, without anybody's doing."""
    one, other, url = nodes
    await listening(one, other)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await listening(one, other, "up again")
