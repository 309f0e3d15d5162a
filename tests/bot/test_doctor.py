"""`palaver doctor`: what it looks at, what it finds, and that it changes nothing."""

import socket

import pytest

from bot import doctor
from bot.doctor import Finding
from bot.health import HealthCheck
from bot.telemetry import Telemetry
from bot.web.app import WebServer, build
from config.settings import HttpSettings, Settings
from config.sources import Loaded
from sessions.database.sqlite import SqliteDatabase
from tests.fakes.discord import FakeDiscord
from tests.fakes.llm import FakeLlm
from tests.fakes.telegram import FakeTelegram


@pytest.fixture(autouse=True)
def no_keys_of_this_machine(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def loaded(path, **sections):
    return Loaded(
        Settings.model_validate({"database_url": f"sqlite://{path}", "http": {"port": 0}, **sections}),
        {},
        None,
    )


async def examine(path, **sections):
    return {finding.subject: finding for finding in await doctor.examine(loaded(path, **sections))}


async def test_a_fresh_machine_is_well(tmp_path):
    """Nothing configured, no database yet: all is well, and nothing was made."""
    found = await examine(tmp_path / "palaver.db")
    assert all(finding.is_good for finding in found.values()), found
    assert "will be made at the first start" in found["database"].text
    assert list(tmp_path.iterdir()) == []


async def test_keys_that_the_first_start_will_not_find_are_found(tmp_path):
    """Before there is a database, too: the daemon would not make one."""
    found = await examine(tmp_path / "palaver.db", store={"encryption_keys": [f"file:{tmp_path / 'keys'}"]})
    assert not found["database"].is_good
    assert "store.encryption_keys, entry 1: cannot read" in found["database"].text


async def test_a_sound_database(tmp_path):
    """A database in use is looked at beside its daemon."""
    path = tmp_path / "palaver.db"
    database = await SqliteDatabase.open(path)
    try:
        found = await examine(path)
    finally:
        await database.close()
    assert (found["database"].is_good, found["database"].text) == (True, f"{path} is sound")


async def test_looking_leaves_nothing_behind(tmp_path):
    """Of a file that no daemon has open, the log that SQLite makes for looking is gone afterwards; a daemon's stays."""
    path = tmp_path / "palaver.db"
    database = await SqliteDatabase.open(path)
    await database.close()
    before = sorted(tmp_path.iterdir())
    assert (await examine(path))["database"].is_good
    assert sorted(tmp_path.iterdir()) == before
    database = await SqliteDatabase.open(path)
    try:
        assert (await examine(path))["database"].is_good
        assert (tmp_path / "palaver.db-wal").exists()
        await database.write(lambda tx: tx.execute("DELETE FROM inbox"))
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("place", "said"), [("file/palaver.db", "is a file"), ("/proc/1/palaver.db", "is not writable")]
)
async def test_a_place_where_nothing_can_be_made_is_found(tmp_path, place, said):
    """A database that is not there yet and cannot be made is no good news, for root either."""
    (tmp_path / "file").touch()
    found = (await examine(tmp_path / place))["database"]
    assert (found.is_good, said in found.text) == (False, True), found
    assert "database_url" in found.hint


async def test_a_disk_that_is_nearly_full_is_found(tmp_path):
    """A database on which a daemon would take nothing in is no good news, sound as it may be."""
    path = tmp_path / "palaver.db"
    await (await SqliteDatabase.open(path)).close()
    found = (await examine(path, store={"reserve_bytes": 2**60}))["database"]
    assert not found.is_good
    assert "nothing is taken in" in found.text
    assert "store.reserve_bytes" in found.hint


async def test_a_folder_is_no_database(tmp_path):
    """A folder's name in the place of a file's is said to be that, with a name that would do."""
    found = (await examine(tmp_path))["database"]
    assert (found.is_good, found.text) == (False, f"{tmp_path} is a folder, not a file")
    assert f"sqlite://{tmp_path}/palaver.db" in found.hint


async def test_lines_stand_in_columns():
    """What was found begins in one column, however long a subject is, and what to do stands under it."""
    findings = [Finding(True, "config", "none"), Finding(False, "terminal.local", "a word", "a hint")]
    assert [finding.line(14) for finding in findings] == [
        "ok   config          none",
        "BAD  terminal.local  a word\n                     a hint",
    ]


@pytest.mark.parametrize("damage", ["text", "hole"])
async def test_a_damaged_database_is_found(tmp_path, damage):
    """A file that is none, or has a hole, is bad, with what to do."""
    path = tmp_path / "palaver.db"
    if damage == "text":
        path.write_bytes(b"this is no database at all, it is a letter" * 100)
    else:
        await (await SqliteDatabase.open(path)).close()
        content = bytearray(path.read_bytes())
        content[4096:16384] = b"\xff" * 12288
        path.write_bytes(bytes(content))
    found = await examine(path)
    assert not found["database"].is_good
    assert found["database"].hint


async def test_a_taken_port_is_found(tmp_path):
    """A port that another program has is bad, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = await examine(tmp_path / "palaver.db", http={"port": port})
    assert not found["http"].is_good
    assert f"127.0.0.1:{port}" in found["http"].text
    assert "BAD  http" in found["http"].line()


async def test_a_port_that_palaver_has_is_well(tmp_path):
    """Beside a running daemon its port is no trouble: who answers there says that it is one."""
    database = await SqliteDatabase.open(tmp_path / "palaver.db")
    application = build(HealthCheck(database, {}), Telemetry(), (), max_body_bytes=1)
    server = WebServer(application, HttpSettings(port=0))
    await server.start()
    try:
        found = await examine(tmp_path / "palaver.db", http={"port": server.port})
    finally:
        await server.stop()
        await database.close()
    assert found["http"].is_good
    assert "a Palaver runs and serves 127.0.0.1:" in found["http"].text


# accounts and the model


async def examine_account(tmp_path, **account):
    found = await examine(tmp_path / "palaver.db", accounts={"main": account})
    return found[f"{account['platform']}.main"]


async def test_the_terminal_needs_nothing(tmp_path):
    """The chat in the terminal has no platform and no address, and none is made up for it."""
    found = await examine(tmp_path / "palaver.db")
    assert (found["terminal.local"].is_good, found["terminal.local"].text) == (True, "needs nothing")
    assert found["agent"].text == "the built-in agent (no model connected)"


async def test_telegram_says_whose_token_it_is(tmp_path):
    """The account is asked for its name; no update that waits for a daemon is taken away."""
    async with FakeTelegram() as telegram:
        ada = telegram.user("Ada")
        telegram.say(ada, telegram.private_chat(ada), "hello")
        found = await examine_account(
            tmp_path, platform="telegram", token=telegram.token, api_url=telegram.url
        )
        assert [call.method for call in telegram.calls()] == ["getMe"]
        bot = telegram.world.bot
    assert (found.is_good, found.text) == (True, f"the token is @{bot.username}'s (id {bot.id})")


async def test_discord_says_whose_token_it_is(tmp_path):
    """The account is asked for its name, without a connection to the gateway."""
    async with FakeDiscord() as discord:
        found = await examine_account(
            tmp_path, platform="discord", token=discord.token, api_url=discord.api_url
        )
        bot = discord.world.bot
        assert [call.path for call in discord.calls()] == ["/users/@me", "/applications/@me"]
    assert (found.is_good, found.text) == (True, f"the token is {bot.username}'s (id {bot.id})")


@pytest.mark.parametrize("wanted", [True, False])
async def test_discord_says_when_the_bot_may_not_read_everything(tmp_path, wanted):
    """An intent that is wanted and not switched on in the portal is bad, with where to switch it on; unwanted, it is fine."""
    async with FakeDiscord() as discord:
        discord.configure(message_content_intent=False)
        found = await examine_account(
            tmp_path,
            platform="discord",
            token=discord.token,
            api_url=discord.api_url,
            message_content=wanted,
        )
    assert found.is_good is not wanted
    assert ("may not read everything" in found.text) is wanted
    assert ("Message Content Intent" in found.hint) is wanted


@pytest.mark.parametrize("platform", ["telegram", "discord"])
async def test_a_refused_token_is_found(tmp_path, platform):
    """A token that the platform does not take is bad, says so with the status, and with where to get another."""
    token = "1:wrong-secret-token"
    async with FakeTelegram() as telegram, FakeDiscord() as discord:
        api_url = telegram.url if platform == "telegram" else discord.api_url
        found = await examine_account(tmp_path, platform=platform, token=token, api_url=api_url)
    assert (found.is_good, "refused this token (401)" in found.text) == (False, True)
    assert "DISCORD_BOT_TOKEN" in found.hint or "@BotFather" in found.hint
    assert token not in found.line()


@pytest.mark.parametrize("platform", ["telegram", "discord"])
@pytest.mark.parametrize("answer", ["nobody", "page"])
async def test_a_platform_that_is_not_reached_is_found(tmp_path, platform, answer):
    """Nobody at the address, or a login page in its place, is bad; the token is in no line."""
    token = "1:secret-token"
    async with FakeTelegram() as telegram:
        url = telegram.url
        if answer == "page":
            await telegram.outage("502")
            found = await examine_account(tmp_path, platform=platform, token=token, api_url=url)
    if answer == "nobody":
        found = await examine_account(tmp_path, platform=platform, token=token, api_url=url)
    assert not found.is_good
    assert "not reached" in found.text
    assert "api_url" in found.hint
    assert token not in found.line()


async def test_an_account_without_a_token_is_found(tmp_path):
    """Nothing is asked without a token; it is said where one comes from."""
    found = await examine_account(tmp_path, platform="telegram")
    assert (found.is_good, found.text) == (False, "no token is set")
    assert "@BotFather" in found.hint


async def examine_model(tmp_path, **agent):
    found = await examine(tmp_path / "palaver.db", agent={"kind": "llm", **agent})
    return found["agent"]


async def test_a_model_is_asked_for_nothing_but_its_list(tmp_path):
    """A server that answers and takes the key is well, and no token was spent."""
    async with FakeLlm(key="sk-right").running() as server:
        model = {"base_url": server.openai_url, "api_key": "sk-right"}
        found = await examine_model(tmp_path, model="openai:fake-model", **model)
        other = await examine_model(tmp_path, model="openai:no-such", **model)
        assert server.journal == []
    assert (found.is_good, found.text) == (True, f"openai:fake-model: {model['base_url']} answers")
    assert other.is_good
    assert other.text.endswith("does not list this model")


async def test_anthropics_list_is_asked_for_in_its_own_way(tmp_path, monkeypatch):
    """Anthropic's server takes the key in another header."""
    async with FakeLlm(key="sk-right").running() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        found = await examine_model(tmp_path, model="anthropic:fake-model", api_key="sk-right")
    assert (found.is_good, found.text) == (True, f"anthropic:fake-model: {server.url} answers")


async def test_a_model_that_refuses_the_key_is_found(tmp_path):
    """401 is bad and names the setting; the key is in no line."""
    async with FakeLlm(key="sk-right").running() as server:
        found = await examine_model(
            tmp_path, model="openai:x", base_url=server.openai_url, api_key="sk-wrong"
        )
    assert (found.is_good, "refused the key (401)" in found.text) == (False, True)
    assert "agent.api_key" in found.hint
    assert "sk-wrong" not in found.line()


async def test_a_model_that_is_not_there_is_found(tmp_path):
    """Nobody at the model's address is bad and names the setting; a missing key does too."""
    async with FakeLlm().running() as server:
        address = server.openai_url
    found = await examine_model(tmp_path, model="openai:x", base_url=address)
    assert (found.is_good, f"{address} is not reached" in found.text) == (False, True)
    assert "agent.base_url" in found.hint
    found = await examine_model(tmp_path, model="openai:x")
    assert (found.is_good, "OPENAI_API_KEY" in found.text) == (False, True)


async def test_http_that_is_off_is_not_looked_at(tmp_path):
    """Without the HTTP server there is no port to look at."""
    assert "http" not in await examine(tmp_path / "palaver.db", http={"enabled": False})
