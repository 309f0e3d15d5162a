"""Who may talk here: one table of cases, each with the reason and the sentence that is said."""

from typing import Any

import pytest

from adapters.messages import Attachment
from bot import policy
from bot.policy import Decision
from config.names import ChannelId, PersonId
from config.settings import AccessSettings, AccountSettings, ScopeSettings, Settings
from sessions.models import Person
from tests.bot.house import inbound

ADA = ("ada",)
GROUP = {"channel_kind": "group", "channel": "g"}
ADDRESSED = {**GROUP, "is_addressed": True}
IGNORED = {**GROUP, "is_addressed": False}
FILE = (Attachment("photo", "file-1"),)


def decide(message: dict[str, Any], access: dict[str, Any], role: str = "member") -> Decision:
    person = Person(PersonId("p"), "Ada", role, None)  # type: ignore[arg-type]  # the table holds plain strings
    return policy.decide(inbound(**message), person, AccessSettings(**access), 20)


CASES = [
    # message, access, role, reason, sentence
    ("a direct message from anybody", {}, {}, "member", "", None),
    ("a group message that is meant for the bot", ADDRESSED, {}, "member", "", None),
    ("group talk", IGNORED, {}, "member", "not_addressed", None),
    ("group talk by an operator", IGNORED, {}, "operator", "not_addressed", None),
    ("group talk by somebody blocked", IGNORED, {"block": ADA}, "member", "not_addressed", None),
    ("group talk by a stranger", IGNORED, {"allow": ()}, "member", "not_addressed", None),
    ("another bot, directly", {"is_bot": True}, {}, "member", "from_bot", None),
    ("another bot that mentions us", {**ADDRESSED, "is_bot": True}, {}, "member", "from_bot", None),
    ("a bot on the allow-list", {"is_bot": True}, {"allow": ADA}, "member", "from_bot", None),
    (
        "a command for another bot",
        {**ADDRESSED, "is_command_for_other": True},
        {},
        "member",
        "command_for_other_bot",
        None,
    ),
    ("blocked by role", {}, {}, "blocked", "blocked", None),
    ("blocked by id", {}, {"block": ADA}, "member", "blocked", None),
    ("blocked by username in another case", {}, {"block": ("@ADA",)}, "member", "blocked", None),
    ("everybody blocked", {}, {"block": ("*",)}, "operator", "blocked", None),
    ("blocked and allowed", {}, {"allow": ADA, "block": ADA}, "member", "blocked", None),
    ("allowed by id", {}, {"allow": ADA}, "member", "", None),
    (
        "allowed by id only in that very spelling",
        {},
        {"allow": ("Ada",)},
        "member",
        "stranger",
        "stranger_anyone",
    ),
    ("allowed by username", {}, {"allow": ("@Ada",)}, "member", "", None),
    (
        "a username without its @",
        {"person": "8841"},
        {"allow": ("ada",)},
        "member",
        "stranger",
        "stranger_anyone",
    ),
    ("nobody allowed", {}, {"allow": ()}, "member", "stranger", "stranger_anyone"),
    (
        "a stranger where there is somebody to ask",
        {},
        {"allow": (), "contact": "Bob"},
        "member",
        "stranger",
        "stranger",
    ),
    ("an operator needs no allow-list", {}, {"allow": ()}, "operator", "", None),
    ("a stranger in a group", ADDRESSED, {"allow": ("bob",)}, "member", "stranger", "stranger_anyone"),
    (
        "a group that is not allowed",
        ADDRESSED,
        {"allow_channels": ("other",)},
        "member",
        "channel_not_allowed",
        None,
    ),
    ("no group allowed", ADDRESSED, {"allow_channels": ()}, "operator", "channel_not_allowed", None),
    ("an allowed group", ADDRESSED, {"allow_channels": ("g",)}, "member", "", None),
    ("direct messages are no group", {}, {"allow_channels": ()}, "member", "", None),
    (
        "a stranger in a group that is not allowed hears nothing",
        ADDRESSED,
        {"allow": (), "allow_channels": ()},
        "member",
        "channel_not_allowed",
        None,
    ),
    ("a sticker", {"text": "", "unsupported": "sticker"}, {}, "member", "unsupported", "unsupported_sticker"),
    ("a file too large", {"unsupported": "too_large"}, {}, "member", "unsupported", "unsupported_too_large"),
    (
        "a stranger's sticker",
        {"unsupported": "sticker"},
        {"allow": ()},
        "member",
        "stranger",
        "stranger_anyone",
    ),
    ("nothing", {"text": ""}, {}, "member", "empty", "empty"),
    ("only a mention", {"text": "", "channel_kind": "group"}, {}, "member", "empty", "start_group"),
    ("only blanks", {"text": " \n\t "}, {}, "member", "empty", "empty"),
    ("only a photo", {"text": "", "attachments": FILE}, {}, "member", "", None),
    ("as long as may be", {"text": "x" * 20}, {}, "member", "", None),
    ("too long", {"text": "x" * 21}, {}, "member", "too_long", "too_long"),
]


@pytest.mark.parametrize(
    ("message", "access", "role", "reason", "text"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_decision(message, access, role, reason, text):
    """Each case is decided for the expected reason, and says the expected sentence or nothing."""
    decision = decide(message, access, role)
    assert (decision.reason, decision.text) == (reason, text)
    assert decision.is_accepted == (reason == "")


def test_a_display_name_never_lets_anybody_in():
    """Anybody can call themselves what they like: only ids and usernames count."""
    assert decide({"person": "mallory"}, {"allow": ("Mallory",)}).reason == "stranger"


def test_a_nameless_sender_is_no_match_for_a_bare_at_sign():
    """A sender without a username does not match an entry that is only the at sign."""
    message = inbound()
    nameless = type(message.sender)(message.sender.user_id, "Ada")
    person = Person(PersonId("p"), "Ada", "member", None)
    decision = policy.decide(
        type(message)(**{name: getattr(message, name) for name in message.__slots__} | {"sender": nameless}),
        person,
        AccessSettings(allow=("@",)),
        100,
    )
    assert decision.reason == "stranger"


def test_strangers_are_told_once_only():
    """Only the word to a stranger is said a single time; what went wrong with a message is said each time."""
    assert decide({}, {"allow": ()}).is_told_once
    assert not decide({"text": ""}, {}).is_told_once


def test_an_account_has_its_own_rules():
    """The account's access rules stand in place of the general ones, not beside them."""
    settings = Settings(access=AccessSettings(block=("ada",)))
    own = AccountSettings(platform="memory", access=AccessSettings(allow=("bob",)))
    assert policy.access_for(settings, own).block == ()
    assert policy.access_for(settings, AccountSettings(platform="memory")).block == ("ada",)


def test_the_nearest_scope_wins():
    """A channel's scope goes before the account's, and that before the general one."""
    settings = Settings()
    per_person = ScopeSettings(group="person")
    joined = ScopeSettings(separate_threads=False)
    own = AccountSettings(platform="memory", scope=per_person, channel_scopes={"g": joined})
    assert policy.scope_for(settings, own, ChannelId("g")) is joined
    assert policy.scope_for(settings, own, ChannelId("other")) is per_person
    plain = AccountSettings(platform="memory")
    assert policy.scope_for(settings, plain, ChannelId("g")) is settings.sessions.scope


def test_the_table_uses_every_reason_of_a_decision():
    """Every reason that a decision on arrival can have stands in the table above."""
    later = {"queue_full", "session_paused", "edited_after_answer", "unknown_command"}
    assert {case[4] for case in CASES} == set(policy.Reason.__args__) - later
