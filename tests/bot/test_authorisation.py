"""Who may not talk does not: no model is asked for them, and nobody sees what is another session's."""

import random
import re
from collections.abc import AsyncIterator

from adapters.messages import InboundMessage, Sender
from bot import policy
from bot.agents.base import AgentContext, Event, Toolbox
from bot.agents.scripted import ScriptedAgent
from config.names import AccountId, ChannelId, PersonId, PlatformMessageId, PlatformUserId
from config.settings import AccessSettings
from sessions import people
from sessions.models import Person
from tests.bot.house import GatedAgent

ACCOUNT = AccountId("memory.main")


class ListeningAgent:
    """Answers like the scripted one, and keeps what it was shown."""

    name = "listening"

    def __init__(self) -> None:
        self.contexts: list[AgentContext] = []

    async def run(self, context: AgentContext, tools: Toolbox) -> AsyncIterator[Event]:
        self.contexts.append(context)
        async for event in ScriptedAgent().run(context, tools):
            yield event

    async def close(self) -> None:
        """Nothing to close."""


async def block(house, name):
    """As `palaver people block` does."""
    (row,) = await house.rows("SELECT id FROM persons WHERE display_name = :name", name=name)
    await house.database.write(lambda tx: people.set_role(tx, row["id"], "blocked"))


async def test_somebody_blocked_while_their_messages_wait_is_not_answered(build):
    """Blocked in the middle of a turn: what waits behind it asks no model and shows nothing; others go on as before."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        for text in ("one", "two", "three"):
            await house.deliver(text)
        await house.deliver("hello", person="bob")
        await house.until(lambda: len(agent.begun) == 2)
        await block(house, "Ada")
        agent.gate.set()
        await house.until_quiet()
        assert sorted(agent.begun) == ["hello", "one"]
        assert await house.statuses() == ["completed", "declined", "declined", "completed"]
        assert (await house.deliver("four")).reason == "blocked"
        await house.until_quiet()
    assert house.shown() == ["echo: one"]
    assert house.shown("bob") == ["echo: hello"]


async def test_blocked_while_the_daemon_was_away(build):
    """What somebody wrote before they were blocked is not answered by the next start either."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running(drain_s=0):
        await house.deliver("one")
        await house.until(lambda: agent.begun)
        await block(house, "Ada")
    again = build(room=house.room, agent=ListeningAgent())
    async with again.running():
        await again.until_quiet()
        assert await again.statuses() == ["declined"]
        assert again.agents[None].contexts == []
    assert again.shown() == []


async def test_a_replayed_update_does_nothing(build):
    """The same message again, by its author or in somebody else's name, is neither answered nor given to a model."""
    agent = ListeningAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("one", message_id=PlatformMessageId("m1"))
        await house.until_quiet()
        for text, person in (
            ("one", "ada"),
            ("other words", "ada"),
            ("one", "mallory"),
            ("/forget all", "ada"),
        ):
            receipt = await house.deliver(
                text, person=person, channel=ChannelId("ada"), message_id=PlatformMessageId("m1")
            )
            assert receipt.outcome == "duplicate"
        await house.until_quiet()
        assert len(agent.contexts) == 1
        assert await house.rows("SELECT 1 AS x FROM persons WHERE display_name = 'Mallory'") == []
    assert house.shown() == ["echo: one"]


async def test_strangers_reach_no_model_and_nobody_sees_another_session(build):
    """Hundreds of messages of friends, strangers and blocked people, in direct chats and groups, by chance: the model sees the
    allowed ones only, and of each conversation only what was said in it.
    """
    rng = random.Random(20261127)
    agent = ListeningAgent()
    house = build(
        agent=agent,
        access={"allow": ["friend0", "friend1", "friend2"], "block": ["friend2"], "allow_channels": ["club"]},
    )
    wanted, place_of = set(), {}
    async with house.running():
        for number in range(400):
            person = f"{rng.choice(['friend', 'friend', 'stranger'])}{rng.randrange(4)}"
            group = rng.choice([None, None, "club", "elsewhere"])
            is_addressed = group is None or rng.random() < 0.6
            text = f"secret-{number} of {person}"
            await house.deliver(
                text,
                person=person,
                channel=ChannelId(group or person),
                channel_kind="group" if group else "direct",
                is_addressed=is_addressed,
            )
            place_of[text] = group or person
            if person in ("friend0", "friend1") and is_addressed and group != "elsewhere":
                wanted.add(text)
        await house.until_quiet(30)
    asked = {context.messages[-1].content for context in agent.contexts}
    assert asked == wanted
    for context in agent.contexts:
        said = " ".join(message.content for message in context.messages)
        told = {place_of[text] for text in re.findall(r"secret-\d+ of \w+", said)}
        assert len(told) == 1, told
    for channel in {*place_of.values()}:
        for text in house.shown(channel):
            if "secret-" in text:
                assert place_of[text.removeprefix("echo: ")] == channel


def expected(message: InboundMessage, person: Person, access: AccessSettings) -> bool:
    """The rules once more, in other words: accepted or not."""
    names = {"*", message.sender.user_id}
    if message.sender.username:
        names |= {"@" + message.sender.username.lower()}
    is_named = {
        kind: any(name in names or (name[:1] == "@" and name.lower() in names) for name in listed)
        for kind, listed in (("allow", access.allow), ("block", access.block))
    }
    is_group = message.channel_kind == "group"
    return not (
        message.sender.is_bot
        or message.is_command_for_other
        or person.role == "blocked"
        or is_named["block"]
        or (is_group and not message.is_addressed)
        or (is_group and not {"*", message.channel} & set(access.allow_channels))
        or not (is_named["allow"] or person.role == "operator")
        or message.unsupported
        or not message.text.strip()
        or len(message.text) > 50
    )


def test_a_hundred_thousand_decisions_are_what_the_rules_say():
    """Whatever comes together, the policy accepts exactly what a second reading of the rules accepts; both outcomes happen."""
    rng = random.Random(5)
    people_ = ["7", "8", "ada", "@ada", "@Bob", "*", "@"]
    counts = {True: 0, False: 0}
    for _ in range(100_000):
        access = AccessSettings.model_construct(
            allow=tuple(rng.sample(people_, rng.randint(0, 3))),
            block=tuple(rng.sample(people_[:5], rng.randint(0, 1))),
            allow_channels=tuple(rng.sample(["*", "c1", "c2"], rng.randint(0, 2))),
            contact="",
        )
        message = InboundMessage(
            account=ACCOUNT,
            channel=ChannelId(rng.choice(["c1", "c3"])),
            message_id=PlatformMessageId("1"),
            sender=Sender(
                PlatformUserId(rng.choice(["7", "8", "9", "ada"])),
                rng.choice(["Ada", "*", "7"]),
                rng.choice([None, "", "ada", "ADA", "bob", "eve"]),
                is_bot=rng.random() < 0.05,
            ),
            text=rng.choice(["hello", "hello", "hello", " ", "x" * 51]),
            sent_at_ms=1,
            channel_kind=rng.choice(["direct", "group"]),
            is_addressed=rng.random() < 0.8,
            is_command_for_other=rng.random() < 0.05,
            unsupported=rng.choice([None] * 9 + ["sticker"]),
        )
        person = Person(PersonId("p"), "Ada", rng.choice(["member", "member", "blocked", "operator"]), None)
        accepted = policy.decide(message, person, access, 50).is_accepted
        assert accepted == expected(message, person, access), (message, person, access)
        counts[accepted] += 1
    assert min(counts.values()) > 5000, counts
