"""Search by meaning: vectors made in the background, merged with the words, and nobody's but the asker's."""

import asyncio
import importlib.util
import struct
import sys

import pytest

from bot.app import make_encoder
from bot.upkeep import Upkeep
from config.errors import ConfigError
from config.settings import SearchSettings, Settings
from sessions import cleanup, search, semantic, statistics
from sessions.scope import OperatorScope, PersonScope, SessionOnly
from sessions.search import SearchQuery
from sessions.semantic import MiniLm, SemanticUnavailable
from tests.sessions.records import NOW, arrive, incoming

EVERYTHING = OperatorScope()
TOPICS = {"doctor": 0, "dentist": 0, "appointment": 0, "cat": 1, "kitten": 1, "weather": 2, "rain": 2}


class TopicEncoder:
    """A double: a text points where its known words point."""

    def encode(self, texts):
        vectors = []
        for text in texts:
            numbers = [1e-3] * 4
            for word, place in TOPICS.items():
                numbers[place] += word in text.lower()
            numbers[3] = float(not any(word in text.lower() for word in TOPICS))
            length = sum(number * number for number in numbers) ** 0.5
            vectors.append(struct.pack("<4e", *(number / length for number in numbers)))
        return vectors


ENCODER = TopicEncoder()


def say(tx, *texts, user="user-1"):
    session_id = ""
    for number, text in enumerate(texts):
        session_id = arrive(tx, incoming(text, user_id=user), now=NOW + number).session_id
    return session_id


def encode_all(tx, encoder=ENCODER):
    count = 0
    while messages := semantic.pending(tx, 2):
        count += semantic.save(tx, messages, encoder.encode([message.content for message in messages]))
    return count


def found(tx, text, scope=EVERYTHING, encoder=ENCODER, **filters):
    page = semantic.search_both(tx, scope, SearchQuery(text, **filters), encoder.encode([text])[0])
    return [hit.message.content for hit in page.hits]


def test_what_means_the_same_is_found_without_the_words(tx):
    """A dentist is found by asking for a doctor; what holds the word itself comes first."""
    say(tx, "dentist on Tuesday", "the cat sleeps", "a doctor called", "it will rain")
    assert encode_all(tx) == 4
    assert found(tx, "doctor") == ["a doctor called", "dentist on Tuesday"]
    assert found(tx, "kitten") == ["the cat sleeps"]
    assert found(tx, "doctor -tuesday") == ["a doctor called"]
    assert found(tx, "nothing of this") == []


def test_pages_and_filters_hold_for_both_searches(tx):
    """Filters leave out what only its meaning found too; pages neither overlap nor skip."""
    mine = say(tx, *(f"dentist {number}" for number in range(5)), "doctor")
    say(tx, "dentist elsewhere", user="user-2")
    encode_all(tx)
    assert "dentist elsewhere" in found(tx, "doctor")
    assert "dentist elsewhere" not in found(tx, "doctor", session_id=mine)
    assert found(tx, "doctor", since=NOW + 5) == ["doctor"]
    pages = [found(tx, "doctor", number=number, size=3) for number in (1, 2, 3)]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert len({text for page in pages for text in page}) == 7


def test_nobody_finds_the_meaning_of_what_is_not_theirs(tx):
    """The scope stands in the SQL of the vectors as well."""
    mine = say(tx, "dentist mine")
    theirs = say(tx, "dentist theirs", user="user-2")
    encode_all(tx)
    person = tx.row("SELECT person_id FROM sessions WHERE id = :id", {"id": mine})["person_id"]
    assert found(tx, "doctor", PersonScope(person)) == ["dentist mine"]
    assert found(tx, "doctor", PersonScope("nobody")) == []
    assert found(tx, "doctor", SessionOnly(theirs)) == ["dentist theirs"]
    assert found(tx, "doctor", PersonScope(person), session_id=theirs) == []


def test_vectors_follow_their_messages(tx):
    """Edited: made anew. Sealed or removed: gone. Changed between reading and saving: not kept."""
    session_id = say(tx, "dentist", "cat")
    first, second = semantic.pending(tx)
    tx.execute("UPDATE messages SET content = 'rain' WHERE id = :id", {"id": second.id})
    assert semantic.save(tx, [first, second], ENCODER.encode(["dentist", "cat"])) == 1
    assert [message.content for message in semantic.pending(tx)] == ["rain"]
    encode_all(tx)
    tx.execute("UPDATE messages SET content = 'kitten' WHERE id = :id", {"id": first.id})
    assert found(tx, "doctor") == []
    encode_all(tx)
    assert found(tx, "cat") == ["kitten"]
    tx.execute("UPDATE messages SET is_sealed = 1 WHERE id = :id", {"id": first.id})
    assert found(tx, "cat") == []
    assert semantic.pending(tx) == []
    cleanup.purge(tx, session_id)
    assert tx.rows("SELECT * FROM message_vectors") == []


def test_without_the_extra_the_setting_is_refused_with_what_to_do():
    """`search.semantic = true` without the packages: a configuration error that names the command."""
    if importlib.util.find_spec("onnxruntime") is not None:
        pytest.skip("the extra is installed")
    with pytest.raises(SemanticUnavailable):
        MiniLm()
    with pytest.raises(ConfigError, match=r"palaver\[semantic\]") as told:
        make_encoder(Settings(search=SearchSettings(semantic=True)))
    assert f"{sys.executable} -m pip install" in str(told.value)
    assert make_encoder(Settings()) is None


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="the extra is not installed")
def test_the_real_model_knows_what_english_means(tx):
    """all-MiniLM-L6-v2 finds the dentist by the doctor, the flight by the holiday and the milk by the groceries."""
    encoder = MiniLm()
    say(tx, "Dentist on Tuesday at nine", "The cat sat on the mat", "We fly to Lisbon in May", "Buy milk")
    assert encode_all(tx, encoder) == 4
    assert len(tx.rows("SELECT vector FROM message_vectors")[0]["vector"]) == 768
    assert found(tx, "When is my doctor's appointment?", encoder=encoder)[0] == "Dentist on Tuesday at nine"
    assert found(tx, "holiday trip abroad", encoder=encoder)[0] == "We fly to Lisbon in May"
    assert found(tx, "groceries", encoder=encoder) == ["Buy milk"]


async def test_the_upkeep_does_all_of_it(store):
    """Once through: the index holds every word, the statistics are summed up, every message has its vector."""
    await store.write(lambda tx: say(tx, *(f"dentist {number}" for number in range(40))))
    upkeep = Upkeep(store, encoder=ENCODER, now=lambda: NOW)
    await upkeep.work()
    assert not await store.read(search.has_pending)
    assert not await store.read(statistics.has_changes)
    assert await store.read(semantic.pending) == []
    assert len(await store.read(lambda tx: tx.rows("SELECT * FROM message_vectors"))) == 40


async def test_the_upkeep_survives_a_failure(store, monkeypatch):
    """An encoder that fails is logged and tried again; words and statistics go on."""

    class Failing(TopicEncoder):
        tries = 0

        def encode(self, texts):
            self.tries += 1
            if self.tries == 1:
                raise RuntimeError("out of memory")
            return super().encode(texts)

    monkeypatch.setattr("bot.upkeep._RETRY_S", 0.01)
    await store.write(lambda tx: say(tx, "dentist"))
    encoder = Failing()
    task = asyncio.create_task(Upkeep(store, encoder=encoder, now=lambda: NOW).run())
    try:
        async with asyncio.timeout(10):
            while await store.read(semantic.pending):
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert encoder.tries == 2
