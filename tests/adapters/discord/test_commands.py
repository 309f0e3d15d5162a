"""Publishing the command table: once, again only when it changed, and never at the conversation's cost."""

import asyncio

from adapters.messages import CommandSpec
from tests.adapters.discord.world import commands, community, make_adapter, running
from tests.adapters.recording import RecordingIntake


async def test_the_table_is_published():
    """Every command stands there with its description in both languages and its argument, and `/ask` beside them."""
    async with community() as here:
        fake = here.fake
        async with running(make_adapter(fake)):
            await fake.wait_until(lambda: bool(fake.commands()))
        published = {command["name"]: command for command in fake.commands()}
    assert set(published) == {"reset", "help", "ask"}
    assert published["reset"]["description"] == "Begin anew"
    assert published["reset"]["description_localizations"] == {"de": "Neu anfangen"}
    assert published["reset"]["contexts"] == [0, 1]
    assert [(o["name"], o["required"]) for o in published["help"]["options"]] == [("topic", False)]
    assert [(o["name"], o["required"]) for o in published["ask"]["options"]] == [("question", True)]


async def test_an_argument_says_what_it_takes():
    """The option carries its hint in both languages, and where only a few values are taken, they are offered."""

    def table(language):
        hint = {"en": "drops what waits", "de": "verwirft, was wartet"}[language]
        return (
            CommandSpec("stop", "End it", "waiting", argument_hint=hint, argument_values=("all",)),
            CommandSpec("search", "Look", "words"),
        )

    async with community() as here:
        fake = here.fake
        async with running(make_adapter(fake, table=table)):
            await fake.wait_until(lambda: bool(fake.commands()))
        published = {command["name"]: command["options"][0] for command in fake.commands()}
    stop, search = published["stop"], published["search"]
    assert (stop["description"], stop["choices"]) == (
        "drops what waits",
        [{"name": "all", "value": "all"}],
    )
    assert stop["description_localizations"] == {"de": "verwirft, was wartet"}
    assert search["description"] == "words"
    assert "choices" not in search


async def test_published_only_when_changed():
    """Neither reconnecting nor a restart publishes again; a changed table does."""
    async with community() as here:
        fake = here.fake
        intake = RecordingIntake()
        async with running(make_adapter(fake), intake):
            await fake.wait_until(lambda: fake.command_syncs() == 1)
            fake.invalidate_sessions()
            await fake.wait_until(lambda: len(fake.gateway_log("identify")) == 2)
            await fake.wait_connected()
        async with running(make_adapter(fake), intake):
            await asyncio.sleep(0.2)
        assert fake.command_syncs() == 1

        def changed(language):
            return [*commands(language), CommandSpec("whoami", "Who you are")]

        async with running(make_adapter(fake, table=changed), intake):
            await fake.wait_until(lambda: fake.command_syncs() == 2)
        assert "whoami" in {command["name"] for command in fake.commands()}


async def test_a_failing_publication_is_tried_again():
    """When Discord refuses the table the bot hears all the same, and publishes later."""
    async with community() as here:
        fake = here.fake
        fake.fail("PUT /applications/*/commands", "status", status=503, count=2)
        async with running(make_adapter(fake)) as intake:
            fake.say(here.ada, here.direct, "hello")
            await intake.wait_for(1)
            await fake.wait_until(lambda: bool(fake.commands()))
    assert fake.command_syncs() == 3


async def test_publication_can_be_left_out():
    """With sync_commands = false nothing is published."""
    async with community() as here:
        async with running(make_adapter(here.fake, sync_commands=False)):
            await asyncio.sleep(0.2)
        assert here.fake.command_syncs() == 0
