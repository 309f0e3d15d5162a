"""Old messages: they go as the operator's rules say, with the answers to them, and younger ones stay."""

from bot import retention as daemon_side
from config.names import AccountId, ChannelId
from config.settings import Settings
from sessions import emptying, lane, retention
from sessions.database.base import Database
from sessions.retention import Rules
from tests.sessions import records as made
from tests.sessions.records import NOW
from tests.sessions.stores import broken

DAY = 86_400_000


def many(tx, count: int, *, days: int, **how) -> str:
    """A session whose messages came evenly over some days; each is answered."""
    for number in range(count):
        now = NOW + number * days * DAY // count
        queued = made.arrive(tx, made.incoming(f"message {number}", **how), now=now, expire_after_ms=0)
        claim = made.claimed(tx, queued.session_id, now)
        lane.finish(tx, claim, "completed", now, answer="yes")
    return queued.session_id


async def contents(database: Database, session_id: str) -> list[str]:
    rows = await database.read(
        lambda tx: tx.rows(
            "SELECT content FROM messages WHERE session_id = :id AND part = 0 ORDER BY position",
            {"id": session_id},
        )
    )
    return [row["content"] for row in rows]


async def test_old_messages_go_with_their_answers_and_younger_ones_stay(store):
    """Of ten messages over ten days a rule of four days keeps the last four, whatever the session's status."""
    session_id = await store.write(lambda tx: many(tx, 10, days=10))
    now = NOW + 9 * DAY + 1
    removed = await daemon_side.forget_old(store, Rules(general=4 * DAY), lambda: now)
    assert removed == 12
    assert await contents(store, session_id) == [f"message {number}" for number in range(6, 10)]
    assert await broken(store) == set()
    assert await daemon_side.forget_old(store, Rules(general=4 * DAY), lambda: now) == 0


async def test_a_long_session_is_done_in_batches(store, monkeypatch):
    """However many messages are too old, each transaction removes a few and the end is the same."""
    monkeypatch.setattr(emptying, "SLICE", 7)
    session_id = await store.write(lambda tx: many(tx, 50, days=50))
    batch = await store.write(lambda tx: retention.forget_before(tx, session_id, NOW + 40 * DAY, NOW))
    assert 0 < batch <= 14
    await daemon_side.forget_old(store, Rules(general=9 * DAY), lambda: NOW + 49 * DAY + 1)
    assert len(await contents(store, session_id)) == 9


async def test_the_channels_rule_wins_over_the_accounts_and_that_over_the_general_one(store):
    """Each session is judged by the nearest rule; `never` is a rule, too."""
    kept = {}
    for channel in ("short", "never", "plain"):
        kept[channel] = await store.write(
            lambda tx, channel=channel: many(tx, 4, days=4, channel=channel, user_id=channel)
        )
    other = await store.write(
        lambda tx: many(tx, 4, days=4, account=AccountId("discord.guild"), platform="discord", user_id="d")
    )
    rules = Rules(
        general=2 * DAY,
        accounts={made.ACCOUNT: 3 * DAY},
        channels={
            (made.ACCOUNT, ChannelId("short")): DAY,
            (made.ACCOUNT, ChannelId("never")): None,
        },
    )
    await daemon_side.forget_old(store, rules, lambda: NOW + 3 * DAY + 1)
    assert [len(await contents(store, kept[one])) for one in ("short", "never", "plain")] == [1, 4, 3]
    assert len(await contents(store, other)) == 2


async def test_a_turn_that_waits_is_not_forgotten(store):
    """However old a message is, it is not removed before it is answered."""
    queued = await store.write(lambda tx: made.arrive(tx, made.incoming("patience")))
    assert await daemon_side.forget_old(store, Rules(general=DAY), lambda: NOW + 9 * DAY) == 0
    assert await contents(store, queued.session_id) == ["patience"]


def test_the_rules_come_from_the_settings():
    """General, account and channel rules are read from the configuration; without any nothing is removed."""
    configured = Settings.model_validate(
        {
            "sessions": {"keep_messages": "90d"},
            "accounts": {
                "main": {
                    "platform": "telegram",
                    "retention": {
                        "messages": "30d",
                        "channels": {"-100": {"messages": "7d"}, "5": {"messages": "never"}},
                    },
                },
                "guild": {"platform": "discord"},
            },
        }
    )
    rules = daemon_side.rules_of(configured)
    main, guild = AccountId("telegram.main"), AccountId("discord.guild")
    assert rules.kept_ms(main, ChannelId("-100")) == 7 * DAY
    assert rules.kept_ms(main, ChannelId("5")) is None
    assert rules.kept_ms(main, ChannelId("1")) == 30 * DAY
    assert rules.kept_ms(guild, ChannelId("1")) == 90 * DAY
    assert daemon_side.rules_of(Settings()).is_empty
