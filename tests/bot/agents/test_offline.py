"""What the built-in agent understands and says, in English and German."""

import re
from datetime import timedelta

import pytest

from bot.agents.base import ContextMessage, ModelAnswer
from bot.agents.offline import OfflineAgent
from bot.agents.offline.phrases import MODEL_HINT, PHRASES
from bot.agents.offline.understanding import understand
from bot.tools.builtin import builtin_registry
from tests.fakes.toolbox import NOW, MemoryDouble, RecordingToolbox, drive, make_context


async def _say(*messages: str | ContextMessage, memory: MemoryDouble | None = None, **context: str) -> str:
    tools = RecordingToolbox(memory=memory)
    return (await drive(OfflineAgent(), make_context(*messages, **context), tools))[-1].text


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("what is 17 + 25, and what time is it in Tokyo?", "42. In Tokyo it is 18:04 on Friday."),
        ("3*(4+5)", "27."),
        ("what's 1,000 + 5?", "1005."),
        ("what is 15% of 80", "12."),
        ("calculate 2 to the power of 10", "1024."),
        ("what is the square root of 16?", "4."),
        ("how much is 12 times 12?", "144."),
        ("Hi, what is 3+4?", "7."),
        ("hi what is 3 + 4", "7."),
        ("can you please tell me what is 6 x 7", "42."),
        ("what is 1+1 and what is 2+2?", "1+1 = 2. 2+2 = 4."),
        ("1/0", "Division by zero has no result."),
        ("max(1, 2)", "2."),
        ("what time is it?", "It is 10:04 on Friday."),
        ("what time is it in tokyo", "In Tokyo it is 18:04 on Friday."),
        ("What's the time in new york please?", "In New York it is 04:04 on Friday."),
        ("do you know what time it is in Paris?", "In Paris it is 10:04 on Friday."),
        ("what time is it in Tokyo and Berlin?", "In Tokyo it is 18:04 on Friday. In Berlin it is 10:04 on Friday."),
        ("time in utc", "In UTC it is 09:04 on Friday."),
        ("what day is it today?", "It is Friday, 20 November 2026."),
        ("what's the date in Auckland?", "In Auckland it is Friday, 20 November 2026."),
        ("what time is it in Atlantis?", PHRASES["en"]["unknown_place"].format(place="Atlantis")),
        ("thanks!", "You are welcome."),
        ("bye", "Goodbye."),
        ("wie viel ist 3,5 mal 2?", "7."),
        ("was ist 1.500 + 0,5", "1500,5."),
        ("rechne 5 plus 7", "12."),
        ("was ist die Wurzel aus 16?", "4."),
        ("20 Prozent von 50", "10."),
        ("was ist 1 durch 0", "Das lässt sich nicht berechnen."),
        ("wie spät ist es in Berlin?", "In Berlin ist es 10:04 Uhr am Freitag."),
        ("Wie viel Uhr ist es?", "Es ist 10:04 Uhr am Freitag."),
        ("kannst du mir sagen, wie spät es in New York ist?", "In New York ist es 04:04 Uhr am Freitag."),
        ("welcher Tag ist heute?", "Heute ist Freitag, der 20. November 2026."),
        ("wie viel ist 17 + 25 und wie spät ist es in Tokio?", "42. In Tokio ist es 18:04 Uhr am Freitag."),
        ("danke", "Gern geschehen."),
        ("tschüss", "Bis bald."),
    ],
)  # fmt: skip
async def test_phrases(message: str, answer: str) -> None:
    """Sums, times and courtesies are understood in both languages and answered in the language of the question."""
    assert await _say(message) == answer


@pytest.mark.parametrize(
    ("telling", "told", "asking", "answer"),
    [
        ("remember that my cat is called Mia", "I will remember: cat: Mia.", "what is my cat called?", "Mia."),
        ("remember that my cat's name is Mia", "I will remember: cat: Mia.", "what's my cat's name?", "Mia."),
        ("please remember my birthday is 3 May", "I will remember: birthday: 3 May.", "when is my birthday?", "3 May."),
        ("remember the wifi password is hunter2", "I will remember: wifi password: hunter2.", "recall wifi password", "hunter2."),
        ("remember that the coffee code is 4711", "I will remember: coffee code: 4711.", "what is the coffee code?", "4711."),
        ("remember that the coffee code is 4711", "I will remember: coffee code: 4711.",
         "do you know what the coffee code is?", "4711."),
        ("remember the coffee code is 4711", "I will remember: coffee code: 4711.", "do you remember the coffee code?", "4711."),
        ("merke dir, dass der Kaffeecode 4711 ist", "Ich merke mir: Kaffeecode: 4711.", "wie lautet der Kaffeecode?", "4711."),
        ("merke dir: der Kaffeecode ist 4711", "Ich merke mir: Kaffeecode: 4711.", "was ist der Kaffeecode?", "4711."),
        ("Merke dir, dass meine Katze Mia heißt", "Ich merke mir: Katze: Mia.", "Wie heißt meine Katze?", "Mia."),
        ("merk dir bitte: mein Geburtstag ist am 3. Mai", "Ich merke mir: Geburtstag: am 3. Mai.",
         "wann ist mein Geburtstag?", "am 3. Mai."),
        ("merk dir, dass ich Tee mag", "Ich merke mir: ich Tee mag.", "was weißt du?", "Das habe ich mir gemerkt:\n- ich Tee mag"),
        ("remember that I like tea", "I will remember: I like tea.", "what do you remember?",
         "This is what I remember:\n- I like tea"),
        ("merke dir, dass ich Ada heiße", "Ich merke mir: Name: Ada.", "wie heiße ich?", "Ada."),
        ("remember that my cat is called Mia and my dog is called Rex", "I will remember: cat: Mia. I will remember: dog: Rex.",
         "what is my cat called and my dog", "Mia. Rex."),
    ],
)  # fmt: skip
async def test_remembers_and_recalls(telling: str, told: str, asking: str, answer: str) -> None:
    """What a person asks to remember is there for a later question, through the same tools a model would use."""
    memory = MemoryDouble()
    assert await _say(telling, memory=memory) == told
    assert await _say(asking, memory=memory) == answer


async def test_remembers_and_recalls_in_one_sentence() -> None:
    """Requests in one message are carried out in their order."""
    assert (
        await _say("remember that my cat is called Mia, and what is my cat called?")
        == "I will remember: cat: Mia. Mia."
    )


async def test_keeps_a_fact_it_does_not_understand_whole() -> None:
    """A fact without a known form is kept as it was said, with its commas and its `and`."""
    memory = MemoryDouble()
    await _say("remember to buy milk, eggs and bread", memory=memory)
    assert list(memory.values.values()) == ["to buy milk, eggs and bread"]


async def test_lists_what_it_remembers() -> None:
    """Asked for everything, it lists everything, and says so when there is nothing."""
    memory = MemoryDouble()
    assert await _say("what do you remember?", memory=memory) == PHRASES["en"]["nothing_remembered"]
    assert await _say("was hast du dir gemerkt?", memory=memory) == PHRASES["de"]["nothing_remembered"]
    memory.values = {"cat": "Mia", "age": 42}
    assert (
        await _say("what do you remember?", memory=memory)
        == "This is what I remember:\n- cat: Mia\n- age: 42"
    )
    assert await _say("what is my dog called?", memory=memory) == PHRASES["en"]["nothing_named"].format(
        name="dog"
    )


@pytest.mark.parametrize(
    "asked", ["what is the meaning of life", "what is the coffee code and who is the treasurer"]
)
async def test_a_question_about_nothing_remembered_is_one_for_a_model(asked: str) -> None:
    """A question about something never told is no forgotten fact but one for a model, and that is said once."""
    answer = await _say(asked)
    assert answer.count(PHRASES["en"]["no_model"]) == 1
    assert PHRASES["en"]["nothing_named"].partition(" “")[0] not in answer


async def test_knows_the_persons_name() -> None:
    """Who am I is answered from the platform when nothing else was remembered."""
    assert await _say("what is my name?", person_name="Ada") == "Ada."


async def test_searches_the_conversation() -> None:
    """Earlier messages are found, but not the message that asks for them."""
    memory = MemoryDouble()
    memory.messages = [
        ("user", "my cat is ill", NOW - timedelta(days=1)),
        ("user", "search for cat", NOW),
    ]
    assert (
        await _say("search for cat", memory=memory)
        == "One message with “cat”:\n- 2026-11-19 10:04: my cat is ill"
    )
    assert await _say("suche nach Hund", memory=memory) == "Keine frühere Nachricht hier enthält „Hund“."


@pytest.mark.parametrize(
    ("message", "language", "hello"),
    [("hello", "en", "Hello, Ada."), ("Guten Morgen!", "en", "Hallo Ada."), ("hey bot", "de", "Hello, Ada.")],
)
async def test_greets_by_name(message: str, language: str, hello: str) -> None:
    """A greeting is returned with the name and what to ask."""
    answer = await _say(message, language=language, person_name="Ada")
    assert answer.startswith(hello)
    assert len(answer) > len(hello)


@pytest.mark.parametrize(
    ("message", "language", "phrase"),
    [
        ("tell me about whales", "en", PHRASES["en"]["no_model"]),
        ("Was ist der Sinn des Lebens?", "en", PHRASES["de"]["no_model"]),
        ("???", "de", PHRASES["de"]["no_model"]),
        ("2026-11-20", "en", PHRASES["en"]["no_model"]),
        ("x" * 5000, "en", PHRASES["en"]["no_model"]),
    ],
)
async def test_is_honest_about_the_rest(message: str, language: str, phrase: str) -> None:
    """What it cannot do it says, with what it can do and how to connect a model."""
    answer = await _say(message, language=language)
    assert answer.startswith(phrase)
    assert MODEL_HINT in answer
    assert "agent.base_url" in answer


async def test_says_it_at_length_only_once() -> None:
    """Somebody who was told in this conversation is told in one short sentence."""
    first = await _say("tell me about whales")
    again = await _say(
        "tell me about whales", ContextMessage("assistant", first), "and about dolphins, at length"
    )
    assert again == PHRASES["en"]["no_model_again"]
    assert len(again) < len(first) / 2


async def test_abilities_are_true() -> None:
    """Every example in the sentence about its abilities works."""
    english = (
        "what time is it in Tokyo",
        "remember that my cat is called Mia",
        "what is my cat called",
        "search for cat",
    )
    german = (
        "wie spät ist es in Tokio",
        "merke dir, dass meine Katze Mia heißt",
        "wie heißt meine Katze",
        "suche nach Katze",
    )
    for language, examples in (("en", english), ("de", german)):
        told = await _say("what can you do?" if language == "en" else "was kannst du?")
        memory = MemoryDouble()
        for example in ("17 + 25", *examples):
            assert example in told
            assert MODEL_HINT not in await _say(example, memory=memory)


async def test_a_message_without_text() -> None:
    """A photograph alone is answered with what works instead."""
    assert await _say("  ") == PHRASES["en"]["no_text"]


async def test_a_tool_that_is_not_enabled() -> None:
    """With a tool switched off it says so and does not call it."""
    tools = RecordingToolbox(registry=builtin_registry().select(["clock"]))
    events = await drive(OfflineAgent(), make_context("what is 1+1 and what time is it?"), tools)
    assert (
        events[-1].text
        == "I cannot do that here: the tool “calculator” is not enabled. It is 10:04 on Friday."
    )
    assert [request.name for request in tools.ran] == ["clock"]


async def test_is_deterministic() -> None:
    """The same message gives the same events, ids included."""
    runs = [
        await drive(OfflineAgent(), make_context("what is 2^10 and what time is it?"), RecordingToolbox())
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    answers = [event for event in runs[0] if isinstance(event, ModelAnswer)]
    assert [len(answer.tool_requests) for answer in answers] == [2, 0]


def test_catalogue_is_whole() -> None:
    """Both languages have the same sentences with the same blanks."""
    fields = {
        language: {name: sorted(set(re.findall(r"{(\w+)}", text))) for name, text in texts.items()}
        for language, texts in PHRASES.items()
    }
    assert fields["en"].keys() == fields["de"].keys()
    assert {name for name in fields["en"] if fields["en"][name] != fields["de"][name]} <= {"cannot_calculate"}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "remember " + "a, " * 330,
        "my " * 330,
        "merke mein " + "x " * 480,
        "what is " + "1+" * 480,
        " now" * 240,
        "111," * 250,
    ],
)
def test_hostile_messages_end(text: str) -> None:
    """No message makes the patterns search for ever."""
    assert understand(text[:1000], "en")
