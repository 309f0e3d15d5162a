"""The fake Discord, driven by the real discord.py: what it answers, what it refuses, and how it fails."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import discord
import pytest
from discord import app_commands

from tests.fakes.discord import FakeDiscord, RemoteDiscord, Upload, point_library, spawn_discord
from tests.fakes.discord.control import REPOSITORY, VERBS, ControlError
from tests.fakes.discord.model import Channel, Guild, User

pytestmark = pytest.mark.timeout(60)


class Recorder(discord.Client):
    """A client that keeps what it is told."""

    def __init__(self, *, intents: discord.Intents | None = None, **options: Any) -> None:
        options = {"guild_ready_timeout": 0.1, "chunk_guilds_at_startup": False} | options
        super().__init__(intents=intents or discord.Intents.all(), **options)
        self.heard: list[discord.Message] = []
        self.edits: list[discord.Message] = []
        self.deletions: list[int] = []
        self.threads: list[discord.Thread] = []
        self.types: list[str] = []
        self.resumes = 0
        self.readies = 0

    async def on_ready(self) -> None:
        self.readies += 1

    async def on_socket_event_type(self, name: str) -> None:
        self.types.append(name)

    async def on_resumed(self) -> None:
        self.resumes += 1

    async def on_message(self, message: discord.Message) -> None:
        if message.author.id != self.own_id:
            self.heard.append(message)

    async def on_message_edit(self, _: discord.Message, after: discord.Message) -> None:
        self.edits.append(after)

    async def on_message_delete(self, message: discord.Message) -> None:
        self.deletions.append(message.id)

    async def on_thread_create(self, thread: discord.Thread) -> None:
        self.threads.append(thread)

    @property
    def own_id(self) -> int:
        assert self.user is not None
        return self.user.id

    @property
    def texts(self) -> list[str]:
        return [message.content for message in self.heard]


@asynccontextmanager
async def running(fake: FakeDiscord, client: discord.Client) -> AsyncIterator[None]:
    """The client logged in, connected and ready; what ends it early is raised."""
    with fake.library():
        work = asyncio.create_task(client.start(fake.token))
        try:
            async with asyncio.timeout(15):
                while not client.is_ready():
                    if work.done():
                        await work
                    await asyncio.sleep(0.01)
            yield
        finally:
            await client.close()
            await asyncio.gather(work, return_exceptions=True)


async def eventually(claim: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Poll a claim about the client, which has no change signal of its own."""
    try:
        async with asyncio.timeout(timeout_s):
            while not claim():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true in {timeout_s} s") from None


class Scene:
    """A fake with one guild, one channel and one person in it."""

    def __init__(self, fake: FakeDiscord) -> None:
        self.fake = fake
        self.ada: User = fake.add_user("ada", global_name="Ada", locale="de")
        self.guild: Guild = fake.add_guild("Support", members=[self.ada])
        self.general: Channel = fake.add_channel(self.guild, "general")

    def place(self, client: discord.Client) -> discord.TextChannel:
        channel = client.get_channel(int(self.general.id))
        assert isinstance(channel, discord.TextChannel)
        return channel


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with FakeDiscord() as fake:
        yield Scene(fake)


# -- meeting ------------------------------------------------------------------------------------------------


async def test_login_gives_ready_with_guild_channel_and_self(scene: Scene) -> None:
    """discord.py logs in over zlib-stream and finds its guild, channel, member and permissions."""
    client = Recorder()
    async with running(scene.fake, client):
        guild = client.get_guild(int(scene.guild.id))
        assert guild is not None and guild.name == "Support" and guild.me.id == client.own_id
        assert scene.place(client).permissions_for(guild.me).send_messages
        assert scene.fake.connected_sessions() == 1
    assert [entry.detail for entry in scene.fake.gateway_log("connect")] == ["zlib-stream"]
    assert scene.fake.gateway_log("closed")[-1].code in (
        1000,
        4000,
    )  # 4000 with aiohttp 3.14, whatever was asked


async def test_sharded_client_identifies_each_shard(scene: Scene) -> None:
    """AutoShardedClient asks /gateway/bot, identifies every shard, and guilds go to the shard their id names."""
    scene.fake.configure(shards=2)

    class Sharded(discord.AutoShardedClient):
        async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
            """No five seconds between shards here."""

    client = Sharded(intents=discord.Intents.all(), guild_ready_timeout=0.1, chunk_guilds_at_startup=False)
    async with running(scene.fake, client):
        assert sorted(client.shards) == [0, 1]
        guild = client.get_guild(int(scene.guild.id))
        assert guild is not None and guild.shard_id == (guild.id >> 22) % 2
    assert scene.fake.calls("GET /gateway/bot")


async def test_members_are_sent_in_chunks_when_asked(scene: Scene) -> None:
    """Members come by op 8, or in GUILD_CREATE with the presence intent; REST lists them too."""
    without_presences = discord.Intents.all()
    without_presences.presences = False
    for intents in (without_presences, discord.Intents.all()):
        client = Recorder(intents=intents, chunk_guilds_at_startup=True)
        async with running(scene.fake, client):
            guild = client.get_guild(int(scene.guild.id))
            assert guild is not None
            member = guild.get_member(int(scene.ada.id))
            assert member is not None
            assert member.display_name == "Ada"
            assert sorted([one.id async for one in guild.fetch_members()]) == sorted(
                map(int, scene.guild.member_ids)
            )


async def test_wrong_token_is_refused(scene: Scene) -> None:
    """A token the fake does not know: 401 at login."""
    client = Recorder()
    with scene.fake.library():
        with pytest.raises(discord.LoginFailure):
            await client.login("wrong")
        await client.close()
    assert scene.fake.calls("GET /users/@me")[0].status == 401


async def test_revoked_token_closes_the_gateway_with_4004(scene: Scene) -> None:
    """Revoking a token ends live connections with 4004, and REST answers 401 until it is restored."""
    client = Recorder()
    with scene.fake.library():
        work = asyncio.create_task(client.start(scene.fake.token))
        await eventually(client.is_ready, "ready")
        scene.fake.revoke_token()
        with pytest.raises(discord.ConnectionClosed) as closed:
            await work
        assert closed.value.code == 4004
        again = Recorder()
        with pytest.raises(discord.LoginFailure):
            await again.login(scene.fake.token)
        await again.close()
        scene.fake.restore_token()
        restored = Recorder()
        await restored.login(scene.fake.token)
        await restored.close()
        await client.close()


async def test_ungranted_message_content_intent_is_refused(scene: Scene) -> None:
    """Asking for an intent that the portal does not grant: 4014."""
    scene.fake.configure(message_content_intent=False)
    client = Recorder()
    with scene.fake.library(), pytest.raises(discord.PrivilegedIntentsRequired):
        await client.start(scene.fake.token)
    await client.close()


async def test_without_content_intent_only_mentions_and_dms_have_text(scene: Scene) -> None:
    """Without the intent the text of guild messages is empty unless the bot is mentioned; DMs keep theirs."""
    scene.fake.configure(message_content_intent=False)
    intents = discord.Intents.default()
    client = Recorder(intents=intents)
    async with running(scene.fake, client):
        scene.fake.say(scene.ada, scene.general, "secret")
        scene.fake.say(scene.ada, scene.general, "for you", mention_bot=True)
        scene.fake.say(scene.ada, scene.fake.dm(scene.ada), "private")
        await eventually(lambda: len(client.heard) == 3, "three messages")
        bot_id = scene.fake.bot.id
        assert client.texts == ["", f"<@{bot_id}> for you", "private"]
        assert [m.content async for m in scene.place(client).history()] == [f"<@{bot_id}> for you", ""]


async def test_places_appear_while_connected(scene: Scene) -> None:
    """A new guild, channel, member and DM, and somebody typing, are announced to whoever is connected."""
    scene.fake.configure(announce_dm_channels=True)
    client = Recorder()
    async with running(scene.fake, client):
        annex = scene.fake.add_guild("Annex", members=[scene.ada], guild_id="1000000000000000000")
        lobby = scene.fake.add_channel(annex, "lobby")
        bob = scene.fake.add_user("bob")
        scene.fake.add_member(annex, bob, nickname="Bobby")
        await eventually(lambda: client.get_channel(int(lobby.id)) is not None, "the channel")
        guild = client.get_guild(int(annex.id))
        assert guild is not None
        await eventually(lambda: guild.get_member(int(bob.id)) is not None, "the member")
        assert guild.get_member(int(bob.id)).display_name == "Bobby"  # type: ignore[union-attr]
        scene.fake.type(bob, lobby)
        scene.fake.dm(bob)
        await eventually(lambda: client.types[-2:] == ["TYPING_START", "CHANNEL_CREATE"], "typing and DM")
        assert (await client.fetch_guild(int(annex.id))).name == "Annex"
        opened = await (await client.fetch_user(int(bob.id))).create_dm()
        assert opened.id == int(scene.fake.dm(bob).id)
        scene.fake.remove_channel(lobby)
        await eventually(lambda: client.get_channel(int(lobby.id)) is None, "the channel to go")


# -- talking ------------------------------------------------------------------------------------------------


async def test_message_in_guild_and_dm_arrive_whole(scene: Scene) -> None:
    """A person's message carries author, guild, channel, mention; a DM comes in a channel READY never listed."""
    client = Recorder()
    async with running(scene.fake, client):
        asked = scene.fake.say(scene.ada, scene.general, "hello", mention_bot=True)
        scene.fake.say(scene.ada, scene.fake.dm(scene.ada), "psst")
        await eventually(lambda: len(client.heard) == 2, "two messages")
        public, private = client.heard
        assert (public.id, public.author.display_name) == (int(asked.id), "Ada")
        assert public.guild is not None and client.user in public.mentions
        assert abs((discord.utils.utcnow() - public.created_at).total_seconds()) < 60
        assert isinstance(private.channel, discord.DMChannel) and private.content == "psst"
        await private.channel.send("pong")
        assert scene.fake.bot_texts(scene.fake.dm(scene.ada)) == ["pong"]


async def test_reply_is_kept_and_mentions_nobody_when_told_so(scene: Scene) -> None:
    """A reply keeps its reference; allowed_mentions none is recorded and really mentions no one."""
    client = Recorder()
    async with running(scene.fake, client):
        asked = scene.fake.say(scene.ada, scene.general, "who?")
        await eventually(lambda: bool(client.heard), "the message")
        await client.heard[0].reply(
            f"<@{scene.ada.id}> @everyone you", allowed_mentions=discord.AllowedMentions.none()
        )
        answer = await scene.fake.wait_for_message(scene.general, reply_to=asked)
        assert answer.allowed_mentions == {"parse": []}
        assert answer.mention_ids == [] and not answer.mention_everyone
        await client.heard[0].reply("and now?")
        loud = await scene.fake.wait_for_message(scene.general, contains="and now")
        assert loud.mention_ids == [scene.ada.id]


async def test_reply_to_a_deleted_message_is_refused(scene: Scene) -> None:
    """An unknown reference is 50035, unless the request says that it may be missing."""
    client = Recorder()
    async with running(scene.fake, client):
        asked = scene.fake.say(scene.ada, scene.general, "gone soon")
        scene.fake.delete(asked)
        place = scene.place(client)
        strict = discord.MessageReference(message_id=int(asked.id), channel_id=place.id)
        with pytest.raises(discord.HTTPException) as refused:
            await place.send("late", reference=strict)
        assert refused.value.code == 50035
        lenient = discord.MessageReference(
            message_id=int(asked.id), channel_id=place.id, fail_if_not_exists=False
        )
        assert (await place.send("late", reference=lenient)).reference is None


async def test_edits_and_deletions_by_both_sides(scene: Scene) -> None:
    """People's edits and deletions reach the client; the bot's are kept as versions, others' are refused to it."""
    client = Recorder()
    async with running(scene.fake, client):
        theirs = scene.fake.say(scene.ada, scene.general, "frist")
        await eventually(lambda: bool(client.heard), "the message")
        scene.fake.edit(theirs, "first")
        await eventually(lambda: bool(client.edits), "the edit")
        assert client.edits[0].content == "first" and client.edits[0].edited_at is not None
        with pytest.raises(discord.Forbidden):
            await scene.place(client).get_partial_message(int(theirs.id)).edit(content="mine")
        scene.fake.delete(theirs)
        await eventually(lambda: client.deletions == [int(theirs.id)], "the deletion")
        own = await scene.place(client).send("a")
        await own.edit(content="ab")
        assert scene.fake.message(str(own.id)).versions == ["a", "ab"]
        await own.delete()
        assert scene.fake.bot_messages(scene.general) == []
        with pytest.raises(discord.NotFound) as gone:
            await own.edit(content="abc")
        assert gone.value.code == 10008


async def test_history_in_every_direction(scene: Scene) -> None:
    """after, before, around and limit give what discord.py expects, across pages of 100."""
    client = Recorder()
    said = [scene.fake.say(scene.ada, scene.general, str(number)) for number in range(230)]
    async with running(scene.fake, client):
        place = scene.place(client)
        assert place.last_message_id == int(said[-1].id)
        mark = discord.Object(id=int(said[9].id))
        later = [m.content async for m in place.history(after=mark, oldest_first=True, limit=None)]
        assert later == [str(number) for number in range(10, 230)]
        newest = [m.content async for m in place.history(limit=3)]
        assert newest == ["229", "228", "227"]
        earlier = [m.content async for m in place.history(before=mark, limit=None)]
        assert earlier == [str(number) for number in range(8, -1, -1)]
        around = [m.content async for m in place.history(around=mark, limit=5)]
        assert sorted(map(int, around)) == [7, 8, 9, 10, 11]


async def test_attachments_come_and_go(scene: Scene) -> None:
    """A person's file can be downloaded while its address is fresh; the bot's upload is kept byte for byte."""
    client = Recorder()
    async with running(scene.fake, client):
        scene.fake.say(
            scene.ada, scene.general, "look", attachments=[Upload("a b.txt", b"data", "text/plain")]
        )
        await eventually(lambda: bool(client.heard), "the message")
        attachment = client.heard[0].attachments[0]
        assert await attachment.read() == b"data" and attachment.content_type == "text/plain"
        scene.fake.advance(100_000)
        with pytest.raises(discord.NotFound):
            await attachment.read()
        place = scene.place(client)
        sent = await place.send("here", file=discord.File(__file__, filename="own.py"))
        assert (await sent.attachments[0].read()).startswith(b'"""The fake Discord')
        scene.fake.configure(max_attachment_bytes=10)
        with pytest.raises(discord.HTTPException) as refused:
            await place.send(file=discord.File(__file__))
        assert (refused.value.status, refused.value.code) == (413, 40005)


async def test_typing_and_reactions(scene: Scene) -> None:
    """Typing is recorded; reactions go both ways."""
    client = Recorder()
    async with running(scene.fake, client):
        asked = scene.fake.say(scene.ada, scene.general, "hm")
        await eventually(lambda: bool(client.heard), "the message")
        async with scene.place(client).typing():
            assert len(scene.fake.world.channel(scene.general).typing) == 1
        await client.heard[0].add_reaction("👀")
        scene.fake.react(scene.ada, asked, "👀")
        fetched = await scene.place(client).fetch_message(int(asked.id))
        assert [(str(r.emoji), r.count, r.me) for r in fetched.reactions] == [("👀", 2, True)]
        await client.heard[0].remove_reaction("👀", discord.Object(id=client.own_id))
        assert scene.fake.message(asked).reactions == {"👀": [scene.ada.id]}


async def test_threads_by_the_bot_and_by_people(scene: Scene) -> None:
    """The bot starts a thread from a message and talks there; a person's thread is announced and can be joined."""
    client = Recorder()
    async with running(scene.fake, client):
        scene.fake.say(scene.ada, scene.general, "long story")
        await eventually(lambda: bool(client.heard), "the message")
        thread = await client.heard[0].create_thread(name="story")
        assert thread.id == client.heard[0].id
        await thread.send("tell me")
        scene.fake.say(scene.ada, str(thread.id), "well...")
        await eventually(lambda: "well..." in client.texts, "the answer in the thread")
        assert isinstance(client.heard[-1].channel, discord.Thread)
        with pytest.raises(discord.HTTPException) as again:
            await client.heard[0].create_thread(name="story")
        assert again.value.code == 160004
        other = scene.fake.add_thread(scene.general, "other", owner=scene.ada)
        await eventually(lambda: any(one.name == "other" for one in client.threads), "the new thread")
        await client.threads[-1].join()
        assert scene.fake.bot.id in other.thread_member_ids
        active = await client.threads[-1].guild.active_threads()
        assert sorted(one.name for one in active) == ["other", "story"]


# -- refusals -----------------------------------------------------------------------------------------------


async def test_text_limits(scene: Scene) -> None:
    """2000 characters pass, 2001 are 50035 with the tree of errors, none at all is 50006."""
    client = Recorder()
    async with running(scene.fake, client):
        place = scene.place(client)
        await place.send("x" * 2000)
        with pytest.raises(discord.HTTPException) as too_long:
            await place.send("x" * 2001)
        assert too_long.value.code == 50035 and "In content: Must be 2000 or fewer" in too_long.value.text
        with pytest.raises(discord.HTTPException) as empty:
            await place.send(" ")
        assert empty.value.code == 50006
        assert len(scene.fake.bot_messages(scene.general)) == 1


async def test_places_the_bot_may_not_write_to(scene: Scene) -> None:
    """Unknown, hidden and read-only channels, closed DMs and lost guilds each have their own refusal."""
    hidden = scene.fake.add_channel(scene.guild, "staff", can_view=False)
    readonly = scene.fake.add_channel(scene.guild, "rules", can_send=False)
    closed = scene.fake.dm(scene.ada)
    scene.fake.refuse_dms(scene.ada)
    client = Recorder()
    async with running(scene.fake, client):
        for channel_id, status, code in (
            ("1", 404, 10003),
            (hidden.id, 403, 50001),
            (readonly.id, 403, 50013),
            (closed.id, 403, 50007),
        ):
            with pytest.raises(discord.HTTPException) as refused:
                await client.get_partial_messageable(int(channel_id)).send("hello")
            assert (refused.value.status, refused.value.code) == (status, code)
        scene.fake.say(scene.ada, hidden, "between us")
        scene.fake.say(scene.ada, scene.general, "in public")
        await eventually(lambda: bool(client.heard), "a message")
        assert client.texts == ["in public"]
        scene.fake.remove_guild(scene.guild)
        await eventually(lambda: not client.guilds, "the guild to go")
        with pytest.raises(discord.Forbidden) as lost:
            await client.get_partial_messageable(int(scene.general.id)).send("hello?")
        assert lost.value.code == 50001


async def test_nonce_gives_the_same_message_within_its_window(scene: Scene) -> None:
    """The same nonce makes one message while the window lasts, and a second one after it; a long one is refused."""
    client = Recorder()
    async with running(scene.fake, client):
        place = scene.place(client)
        first = await place.send("once", nonce="turn-1-0")
        second = await place.send("once", nonce="turn-1-0")
        assert first.id == second.id and scene.fake.duplicates() == {}
        scene.fake.advance(301)
        third = await place.send("once", nonce="turn-1-0")
        assert third.id != first.id
        assert scene.fake.duplicates(scene.general) == {f"{scene.general.id} once": 2}
        with pytest.raises(discord.HTTPException) as refused:
            await place.send("twice", nonce="n" * 26)
        assert refused.value.code == 50035


# -- slash commands -----------------------------------------------------------------------------------------


class Commander(Recorder):
    """A client with a command tree; ``gate`` holds the answer back."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = app_commands.CommandTree(self)
        self.gate = asyncio.Event()
        self.gate.set()
        self.trouble: list[BaseException] = []
        self.interactions: list[discord.Interaction[Any]] = []

        @self.tree.command(name="ask", description="Ask something")
        async def ask(interaction: discord.Interaction[Any], question: str, times: int = 1) -> None:
            self.interactions.append(interaction)
            await self.gate.wait()
            await interaction.response.defer()
            await interaction.edit_original_response(content=f"{question} x{times}")
            await interaction.followup.send("more")

        @self.tree.command(name="now", description="Answer at once")
        async def now(interaction: discord.Interaction[Any]) -> None:
            self.interactions.append(interaction)
            await interaction.response.send_message("here", ephemeral=True)

        memory = app_commands.Group(name="memory", description="What I remember")

        @memory.command(name="forget", description="Forget it")
        async def forget(interaction: discord.Interaction[Any], topic: str) -> None:
            self.interactions.append(interaction)
            await interaction.response.send_message(f"forgot {topic}")

        self.tree.add_command(memory)

        @self.tree.error
        async def on_error(_: discord.Interaction[Any], error: app_commands.AppCommandError) -> None:
            self.trouble.append(error.__cause__ or error)


async def test_commands_are_synced_counted_and_hashed(scene: Scene) -> None:
    """A sync is one PUT; the hash changes only with the commands; unregistered commands cannot be used."""
    client = Commander()
    async with running(scene.fake, client):
        with pytest.raises(LookupError):
            scene.fake.slash(scene.ada, scene.general, "ask", {"question": "?"})
        empty = scene.fake.commands_hash()
        synced = await client.tree.sync()
        assert {command.name for command in synced} == {"ask", "now", "memory"}
        first = scene.fake.commands_hash()
        await client.tree.sync()
        assert (first != empty, scene.fake.commands_hash() == first, scene.fake.command_syncs()) == (
            True,
            True,
            2,
        )
        client.tree.copy_global_to(guild=discord.Object(id=int(scene.guild.id)))
        await client.tree.sync(guild=discord.Object(id=int(scene.guild.id)))
        assert len(scene.fake.commands(scene.guild)) == len(await client.tree.fetch_commands()) == 3
        with pytest.raises(ValueError, match="question"):
            scene.fake.slash(scene.ada, scene.general, "ask")


async def test_slash_defer_then_edit_then_follow_up(scene: Scene) -> None:
    """Deferring shows "is thinking", the edit fills it, a follow-up stands beside it; in guild and in DM."""
    client = Commander()
    async with running(scene.fake, client):
        await client.tree.sync()
        for channel in (scene.general, scene.fake.dm(scene.ada)):
            used = scene.fake.slash(scene.ada, channel, "ask", {"question": "why", "times": 2})
            assert used.delivered
            await scene.fake.wait_for_message(channel, text="more")
            assert scene.fake.bot_texts(channel) == ["why x2", "more"]
            assert (used.state, used.callback_type) == ("answered", 5)
            assert scene.fake.messages(channel)[0].versions == ["why x2"]
        user = client.interactions[0].user
        assert isinstance(user, discord.Member) and user.display_name == "Ada"
        assert client.interactions[0].locale is discord.Locale.german
        assert client.interactions[1].guild is None
        first = client.interactions[0]
        assert (await first.original_response()).content == "why x2"
        await first.delete_original_response()
        assert scene.fake.bot_texts(scene.general) == ["more"]
        forgotten = scene.fake.slash(scene.ada, scene.general, "memory forget", {"topic": "tea"})
        answer = await scene.fake.wait_for_message(scene.general, contains="forgot tea")
        assert answer.interaction_id == forgotten.id
        assert client.trouble == []


async def test_original_answer_can_be_edited_by_another_process(scene: Scene) -> None:
    """Application id and token are enough to finish a deferred answer after a restart, until the token is too old."""
    client = Commander()
    async with running(scene.fake, client):
        await client.tree.sync()
        used = scene.fake.slash(scene.ada, scene.general, "ask", {"question": "q"})
        await scene.fake.wait_for_message(scene.general, text="more")
    async with aiohttp.ClientSession() as session:
        with scene.fake.library():
            hook = discord.Webhook.partial(int(scene.fake.bot.id), used.token, session=session)
            original: Any = "@original"  # the route takes it where the signature wants a number
            await hook.edit_message(original, content="after the restart")
            assert scene.fake.bot_texts(scene.general)[0] == "after the restart"
            scene.fake.advance(901)
            with pytest.raises(discord.HTTPException) as too_old:
                await hook.edit_message(original, content="too late")
            assert (too_old.value.status, too_old.value.code) == (401, 50027)
            wrong = discord.Webhook.partial(int(scene.fake.bot.id), "no-such-token", session=session)
            with pytest.raises(discord.NotFound) as unknown:
                await wrong.send("hello")
            assert unknown.value.code == 10015


async def test_late_and_repeated_answers_are_refused(scene: Scene) -> None:
    """After three seconds an interaction is unknown (10062); a second answer is 40060."""
    client = Commander()
    async with running(scene.fake, client):
        await client.tree.sync()
        client.gate.clear()
        used = scene.fake.slash(scene.ada, scene.general, "ask", {"question": "slow"})
        await eventually(lambda: bool(client.interactions), "the command")
        scene.fake.advance(3.1)
        client.gate.set()
        await eventually(lambda: bool(client.trouble), "the refusal")
        assert isinstance(client.trouble[0], discord.NotFound) and client.trouble[0].code == 10062
        assert (used.state, used.refusals, scene.fake.bot_messages()) == ("open", 1, [])
        with pytest.raises(discord.NotFound) as unanswered:
            await client.interactions[0].edit_original_response(content="anyway")
        assert unanswered.value.code == 10015
        scene.fake.slash(scene.ada, scene.general, "now")
        hidden = await scene.fake.wait_for_message(scene.general, text="here")
        assert hidden.is_ephemeral
        assert [m.content async for m in scene.place(client).history()] == []
        response = client.interactions[-1].response
        response._response_type = None  # the library would stop us; another process would not know
        with pytest.raises(discord.HTTPException) as twice:
            await response.send_message("again")
        assert twice.value.code == 40060


async def test_slash_with_nobody_there_is_not_delivered(scene: Scene) -> None:
    """Interactions are never replayed from history: used while the bot is away, they fail for the person."""
    assert not scene.fake.slash(scene.ada, scene.general, "ask", registered=False).delivered


# -- the gateway breaks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["drop", "reconnect", "close", "op9"])
async def test_resume_replays_what_was_missed(scene: Scene, cut: str) -> None:
    """A dropped line, op 7, close code 4000 and op 9 true each lead to RESUME, and nothing said meanwhile is lost."""
    client = Recorder()
    async with running(scene.fake, client):
        scene.fake.say(scene.ada, scene.general, "before")
        await eventually(lambda: bool(client.heard), "the first message")
        scene.fake.hold_identify()
        ways: dict[str, Callable[[], int]] = {
            "drop": scene.fake.drop,
            "reconnect": scene.fake.request_reconnect,
            "close": scene.fake.close_gateway,
            "op9": lambda: scene.fake.invalidate_sessions(resumable=True),
        }
        ways[cut]()
        await scene.fake.wait_until(
            lambda: bool(scene.fake.gateway_log("resume")), timeout_s=10, what="RESUME"
        )
        scene.fake.say(scene.ada, scene.general, "meanwhile 1")
        scene.fake.say(scene.ada, scene.general, "meanwhile 2")
        scene.fake.release_identify()
        await eventually(lambda: client.resumes == 1, "RESUMED")
        assert client.texts == ["before", "meanwhile 1", "meanwhile 2"]
        assert len(scene.fake.gateway_log("identify")) == 1


async def test_invalid_session_loses_the_gap_but_history_has_it(scene: Scene) -> None:
    """After op 9 false the client identifies anew; what was said in between is only in the history."""
    client = Recorder()
    async with running(scene.fake, client):
        seen = scene.fake.say(scene.ada, scene.general, "before")
        await eventually(lambda: bool(client.heard), "the first message")
        scene.fake.hold_identify()
        scene.fake.invalidate_sessions()
        await scene.fake.wait_until(
            lambda: len(scene.fake.gateway_log("identify")) == 2, timeout_s=20, what="IDENTIFY"
        )
        scene.fake.say(scene.ada, scene.general, "in the gap")
        scene.fake.release_identify()
        await eventually(lambda: client.readies == 2, "the second ready")
        scene.fake.say(scene.ada, scene.general, "after")
        await eventually(lambda: "after" in client.texts, "the message after")
        assert client.texts == ["before", "after"]
        mark = discord.Object(id=int(seen.id))
        missed = [
            m.content async for m in scene.place(client).history(after=mark, oldest_first=True, limit=None)
        ]
        assert missed == ["in the gap", "after"]


async def test_forgotten_session_makes_resume_fail(scene: Scene) -> None:
    """A session that is too old, or forgotten, answers RESUME with op 9 false, and the client identifies."""
    client = Recorder()
    async with running(scene.fake, client):
        scene.fake.drop(forget=True)
        await eventually(lambda: client.readies == 2, "the second ready", timeout_s=20)
        assert [
            entry.what for entry in scene.fake.gateway_log() if entry.what in ("resume", "invalid", "ready")
        ] == [
            "ready",
            "resume",
            "invalid",
            "ready",
        ]


async def test_deaf_gateway_acks_and_loses_events(scene: Scene) -> None:
    """A deaf gateway goes on acknowledging heartbeats while events are lost, or kept for the next RESUME."""
    scene.fake.configure(heartbeat_interval_s=0.2)
    client = Recorder()
    async with running(scene.fake, client):
        scene.fake.set_deaf()
        scene.fake.say(scene.ada, scene.general, "lost")
        beats = len(scene.fake.gateway_log("heartbeat"))
        await scene.fake.wait_until(lambda: len(scene.fake.gateway_log("heartbeat")) > beats + 2)
        scene.fake.set_deaf(keep=True)
        scene.fake.say(scene.ada, scene.general, "kept")
        scene.fake.set_deaf(False)
        scene.fake.drop()
        await eventually(lambda: client.resumes == 1, "RESUMED")
        assert client.texts == ["kept"] and len(scene.fake.gateway_log("connect")) == 2


async def test_missing_acks_make_the_client_reconnect(scene: Scene) -> None:
    """When heartbeats are no longer acknowledged the client leaves with 4000 and resumes."""
    scene.fake.configure(heartbeat_interval_s=0.2, heartbeat_grace=50)
    client = Recorder(heartbeat_timeout=1.0)
    async with running(scene.fake, client):
        scene.fake.set_acks(False)
        await scene.fake.wait_until(lambda: len(scene.fake.gateway_log("resume")) >= 1, timeout_s=20)
        scene.fake.set_acks(True)
        await eventually(lambda: client.resumes >= 1, "RESUMED")


async def test_outage_ends_and_the_client_comes_back(scene: Scene) -> None:
    """During an outage REST and gateway refuse; afterwards the client returns by itself."""
    client = Recorder()
    async with running(scene.fake, client):
        scene.fake.begin_outage()
        with pytest.raises(discord.DiscordServerError):
            await scene.place(client).send("anyone?")
        scene.fake.end_outage()
        await scene.fake.wait_connected(timeout_s=30)
        await scene.place(client).send("back")
        assert scene.fake.bot_texts(scene.general) == ["back"]


# -- REST breaks --------------------------------------------------------------------------------------------

SEND = "POST /channels/{channel_id}/messages"


@pytest.mark.parametrize("kind", ["rate_limit", "global_rate_limit"])
async def test_client_waits_out_a_429(scene: Scene, kind: Any) -> None:
    """discord.py waits the told time, so the send succeeds once and no request falls into the penalty."""
    client = Recorder()
    async with running(scene.fake, client):
        scene.fake.fail(SEND, kind, retry_after_s=0.3)
        await scene.place(client).send("patient")
        assert [call.status for call in scene.fake.calls(SEND)] == [429, 200]
        assert scene.fake.penalty_violations() == 0 and scene.fake.bot_texts(scene.general) == ["patient"]


async def test_bucket_headers_are_obeyed_and_violations_counted(scene: Scene) -> None:
    """With a bucket set, discord.py paces itself by the headers; a client that does not is refused and counted."""
    scene.fake.limit(SEND, 2, 0.4)
    client = Recorder()
    async with running(scene.fake, client):
        for number in range(5):
            await scene.place(client).send(str(number))
        assert {call.status for call in scene.fake.calls(SEND)} == {200}
    url = f"{scene.fake.api_url}/channels/{scene.general.id}/messages"
    headers = {"Authorization": f"Bot {scene.fake.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        statuses = []
        for number in range(6):
            async with session.post(url, json={"content": f"rude {number}"}) as answer:
                statuses.append(answer.status)
                content = await answer.json()
        assert statuses.count(429) >= 4 and answer.headers["Via"] and 0 < content["retry_after"] <= 0.4
        assert scene.fake.penalty_violations() == statuses.count(429) - 1
        assert answer.headers["Content-Type"] == "application/json"


async def test_global_limit_stops_every_route(scene: Scene) -> None:
    """With a global limit used up any route answers 429 marked as global, until it is lifted."""
    scene.fake.limit("*", 2, 30.0)
    headers = {"Authorization": f"Bot {scene.fake.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for path, status in (("/users/@me", 200), ("/gateway/bot", 200), ("/oauth2/applications/@me", 429)):
            async with session.get(scene.fake.api_url + path) as answer:
                assert answer.status == status
                content = await answer.json()
        assert content["global"] is True
        assert answer.headers["X-RateLimit-Scope"] == "global"
        scene.fake.clear_limits()
        async with session.get(f"{scene.fake.api_url}/users/@me") as answer:
            assert answer.status == 200


async def test_cloudflare_ban_has_no_via(scene: Scene) -> None:
    """A 429 from in front of Discord has no Via and no JSON, and discord.py gives up at once."""
    client = Recorder()
    async with running(scene.fake, client):
        scene.fake.fail(SEND, "cloudflare")
        with pytest.raises(discord.HTTPException) as refused:
            await scene.place(client).send("banned")
        assert refused.value.status == 429 and len(scene.fake.calls(SEND)) == 1


async def test_answer_lost_after_the_message_was_made(scene: Scene) -> None:
    """The message stands although the sender saw an error; sending again with the same nonce adds none."""
    client = Recorder()
    async with running(scene.fake, client):
        place = scene.place(client)
        scene.fake.fail(SEND, "lost_answer")
        with pytest.raises((OSError, aiohttp.ClientError)):
            await place.send("sent?", nonce="n1")
        assert scene.fake.bot_texts(scene.general) == ["sent?"]
        repeated = await place.send("sent?", nonce="n1")
        assert [str(repeated.id)] == [message.id for message in scene.fake.bot_messages(scene.general)]
        scene.fake.fail(SEND, "lost_answer")
        with pytest.raises((OSError, aiohttp.ClientError)):
            await place.send("no nonce")
        await place.send("no nonce")
        assert scene.fake.duplicates() == {f"{scene.general.id} no nonce": 2}


async def test_each_fault_does_what_it_says(scene: Scene) -> None:
    """Reset, hang, 500, late, slow, garbage, cut-off JSON: done or not done as documented."""
    url = f"{scene.fake.api_url}/channels/{scene.general.id}/messages"
    headers = {"Authorization": f"Bot {scene.fake.token}"}
    timeout = aiohttp.ClientTimeout(total=0.3)
    expected: dict[str, tuple[object, int]] = {
        "reset": ("cut", 0),
        "hang": ("late", 0),
        "status": (502, 0),
        "garbage": (200, 0),
        "garbled_answer": (200, 1),
        "late_answer": ("late", 1),
        "slow": ("late", 1),
        "lost_answer": ("cut", 1),
    }
    for kind, (outcome, made) in expected.items():
        before = len(scene.fake.bot_messages())
        scene.fake.fail(SEND, kind, delay_s=0.5)  # type: ignore[arg-type]
        seen: object
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            try:
                async with session.post(url, json={"content": kind}) as answer:
                    seen = answer.status
                    text = await answer.text()
            except TimeoutError:
                seen = "late"
            except (OSError, aiohttp.ClientError):
                seen = "cut"
        assert seen == outcome, kind
        if kind == "garbled_answer":
            assert text.startswith('{"id"') and not text.endswith("}")
        await scene.fake.wait_until(
            lambda before=before, made=made: len(scene.fake.bot_messages()) == before + made,  # type: ignore[misc]
            what=f"{made} message(s) after {kind}",
        )
        scene.fake.clear_faults()


async def test_faults_with_a_probability_repeat_with_the_seed() -> None:
    """The same seed gives the same faults at the same requests; bad rules are refused."""

    async def run() -> list[int]:
        async with FakeDiscord(seed=7) as fake:
            fake.fail("GET *", "status", count=None, probability=0.5, status=500)
            async with aiohttp.ClientSession() as session:
                return [(await session.get(f"{fake.api_url}/gateway")).status for _ in range(20)]

    first = await run()
    assert first == await run() and set(first) == {200, 500}
    async with FakeDiscord() as fake:
        for bad in ({"route": "GET", "kind": "reset"}, {"route": "GET *", "kind": "fire"}):
            with pytest.raises(ValueError):
                fake.fail(**bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="unknown setting"):
            fake.configure(colour=1)


# -- from another process -----------------------------------------------------------------------------------


async def test_control_process_offers_every_verb() -> None:
    """The fake as its own process serves discord.py, and every public verb of the class is there over /_control."""
    async with spawn_discord(token="of-the-process") as remote:
        about = await remote.call("describe")
        ada = await remote.call("add_user", username="ada", global_name="Ada")
        guild = await remote.call("add_guild", name="Support", members=[ada["id"]])
        general = await remote.call("add_channel", guild=guild["id"], name="general")
        client = Recorder()
        with point_library(about["api"], about["gateway"]):
            work = asyncio.create_task(client.start(about["token"]))
            await remote.call("wait_connected")
            await eventually(client.is_ready, "ready")  # closed before, discord.py leaves a coroutine behind
            note = {"filename": "n.txt", "text": "noted"}
            said = await remote.call(
                "say", user=ada["id"], channel=general["id"], text="hi", attachments=[note]
            )
            await eventually(lambda: client.texts == ["hi"], "the message")
            assert await client.heard[0].attachments[0].read() == b"noted"
            await client.heard[0].reply("hello Ada")
            answer = await remote.call("wait_for_message", channel=general["id"], reply_to=said["id"])
            assert answer["text"] == "hello Ada" and answer["author_id"] == about["bot_id"]
            await client.close()
            await asyncio.gather(work, return_exceptions=True)
        later = await remote.call("say", user=ada["id"], channel=general["id"], text="while you were away")
        assert [m["id"] for m in await remote.call("messages", channel=general["id"])][-1] == later["id"]
        await control_refuses(remote, general["id"])
    public = {name for name in vars(FakeDiscord) if not name.startswith("_")}
    local = {"start", "stop", "url", "api_url", "gateway_url", "library", "bot", "wait_until"}
    assert public - local == set(VERBS)


KILLED = """
import asyncio, sys, discord
from tests.fakes.discord import point_library
client = discord.Client(intents=discord.Intents.all(), guild_ready_timeout=0.1)
@client.event
async def on_message(message):
    if message.author != client.user:
        await message.channel.send("seen " + message.content, nonce=str(message.id))
with point_library(sys.argv[1], sys.argv[2]):
    asyncio.run(client.start(sys.argv[3]))
"""


async def test_killed_client_loses_the_gap_and_the_fake_remembers() -> None:
    """A client killed with -9 leaves no session that helps the next one; the fake keeps what was said meanwhile."""
    async with FakeDiscord() as fake:
        scene = Scene(fake)
        for round_number in range(2):
            arguments = ["-c", KILLED, fake.api_url, fake.gateway_url, fake.token]
            process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=REPOSITORY)
            try:
                await fake.wait_connected(timeout_s=30)
                said = fake.say(scene.ada, scene.general, f"round {round_number}")
                answer = await fake.wait_for_message(scene.general, text=f"seen round {round_number}")
                assert answer.nonce == said.id
            finally:
                process.kill()
                await process.wait()
            await fake.wait_until(lambda: fake.connected_sessions() == 0, what="the end of the connection")
            fake.say(scene.ada, scene.general, "nobody there")
        assert fake.bot_texts() == ["seen round 0", "seen round 1"]
        assert [m.text for m in fake.messages(scene.general)].count("nobody there") == 2


async def control_refuses(remote: RemoteDiscord, channel_id: str) -> None:
    with pytest.raises(ControlError, match="no verb"):
        await remote.call("explode")
    with pytest.raises(ControlError, match="knows no user"):
        await remote.call("say", user=1, channel=channel_id, text="?")
    with pytest.raises(ControlError, match="argument"):
        await remote.call("say", nonsense=1)
    with pytest.raises(TimeoutError):
        await remote.call("wait_for_message", channel=channel_id, contains="never", timeout_s=0.1)
