"""Sentences of several lines keep their lines on every platform: what stands below each other is never run together."""

import re

import pytest

from adapters import registry
from adapters.terminal.formatting import format_reply
from bot import catalogue
from config.names import AccountId
from config.settings import AccountSettings

TEXTS = catalogue.load()
WIDE = 400
"""Columns of a terminal in which no line has to be wrapped."""


@pytest.fixture(params=[*registry.ADAPTERS, "prompt"])
async def visible(request):
    """What people see of a text, line by line: on each platform, and at the terminal's prompt."""
    if request.param == "prompt":
        yield lambda text: lines_of(format_reply(text, "bot › ", WIDE).removeprefix("\x1b[1mbot › \x1b[0m"))
        return
    account = AccountId(f"{request.param}.main")
    settings = AccountSettings(platform=request.param, token="123456:ABC-a-token")
    adapter = registry.load(request.param)(account, settings, lambda _: ())
    yield lambda text: [line for chunk in adapter.render(text) for line in lines_of(chunk.text)]
    await adapter.close()


def lines_of(text):
    """Lines with something in them, without colours, indentation and the signs before the items of a list."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    bare = [re.sub(r"^[-•*]\s+", "", line.strip()) for line in plain.splitlines()]
    return [line for line in bare if line]


SENTENCES = [
    (language, name) for language in catalogue.LANGUAGES for name in ("start", "start_group", "status")
]


def test_the_sentences_of_several_lines_are_these():
    """A further sentence with a line break in the catalogue has to be added to the list above."""
    several = {name for name, text in catalogue.load().texts("en").items() if "\n" in text}
    assert several == {name for _, name in SENTENCES}


@pytest.mark.parametrize(("language", "name"), SENTENCES)
async def test_each_line_stays_a_line(visible, language, name):
    """Every sentence of several lines has as many where it is shown, with the same words in each."""
    text = TEXTS.say(name, language, **dict.fromkeys(catalogue.fields(TEXTS.texts(language)[name]), "x1"))
    assert visible(text) == lines_of(text)


@pytest.mark.parametrize("command", ["/help", "/whoami", "/status", "/stats"])
async def test_the_answers_of_commands_keep_their_lines(build, visible, command):
    """What a command puts together line by line stays so; /help has each command on a line of its own."""
    house = build()
    async with house.running():
        await house.deliver("hello")
        await house.until_quiet()
        await house.database.write(lambda tx: tx.execute("UPDATE persons SET role = 'operator'"))
        before = len(house.shown())
        await house.deliver(command)
        await house.until(lambda: len(house.shown()) > before)
        said = house.shown()[before]
    assert len(lines_of(said)) >= 2
    assert visible(said) == lines_of(said)
