"""Hearing by long polling: order, confirmation, poison, conflicts, outages and refused tokens, over the real wire."""

import asyncio
import json
from dataclasses import replace

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from adapters.base import IntakeClosed
from adapters.telegram.adapter import IDENTITY_CURSOR
from adapters.telegram.hearing import Hearing
from adapters.telegram.pauses import Backoff, Pauses
from adapters.telegram.polling import Trouble
from tests.adapters.recording import RecordingIntake
from tests.adapters.telegram.test_sending import serving
from tests.adapters.telegram.world import ACCOUNT, PAUSES, make_adapter, running, until
from tests.fakes.telegram import FakeTelegram


@pytest.fixture
async def telegram():
    async with FakeTelegram() as telegram:
        yield telegram


@pytest.fixture
def ada(telegram):
    return telegram.user("Ada", username="ada")


@pytest.fixture
def chat(telegram, ada):
    return telegram.private_chat(ada)


def events(logs, name):
    return [entry for entry in logs if entry["event"] == name]


async def test_nothing_is_confirmed_before_it_is_taken_in(telegram, ada, chat):
    """While `deliver` has not returned Telegram keeps the update, and the next waits its turn; then all are confirmed."""
    intake = RecordingIntake()
    async with running(make_adapter(telegram), intake):
        await intake.wait_until(lambda: (ACCOUNT, "commands_hash") in intake.cursors)
        intake.hold()
        for text in ("one", "two", "three"):
            telegram.say(ada, chat, text)
        await asyncio.sleep(0.2)
        assert len(telegram.pending_updates()) == 3
        assert intake.texts == []
        intake.release()
        await intake.wait_for(3)
        await telegram.wait_until_confirmed()
    assert intake.texts == ["one", "two", "three"]
    assert intake.duplicates == []


async def test_a_refused_message_is_tried_again_in_order(telegram, ada, chat):
    """Whatever the intake raises, the feed waits at that message, and hears on after it."""
    adapter = make_adapter(telegram)
    async with running(adapter) as intake:
        await intake.wait_until(lambda: (ACCOUNT, "commands_hash") in intake.cursors)
        intake.fail_next(IntakeClosed("full", 0.02), RuntimeError("bug"), OSError("disk"))
        telegram.say(ada, chat, "one")
        telegram.say(ada, chat, "two")
        await intake.wait_until(lambda: intake.refusals == 2)
        assert adapter.health().state == "retrying"
        assert not adapter.health().is_cut_off, "Telegram is there; we are not"
        assert len(telegram.pending_updates()) == 2
        await intake.wait_for(2)
        await until(lambda: adapter.health().state == "hearing")
    assert intake.texts == ["one", "two"]


async def test_what_was_not_confirmed_comes_again_after_a_restart(telegram, ada, chat):
    """A stop in the middle of a delivery loses nothing."""
    intake = RecordingIntake()
    async with running(make_adapter(telegram), intake):
        await intake.wait_until(lambda: (ACCOUNT, "commands_hash") in intake.cursors)
        intake.hold()
        telegram.say(ada, chat, "held")
        await asyncio.sleep(0.1)
    intake.release()
    async with running(make_adapter(telegram), intake):
        await intake.wait_for(1)
    assert intake.texts == ["held"]


async def test_the_offset_is_sent_once_for_each_batch(telegram, ada, chat):
    """A batch is confirmed by its last id + 1; polls before and after name no offset."""
    async with running(make_adapter(telegram, pauses=PAUSES)) as intake:
        telegram.say(ada, chat, "one")
        await intake.wait_for(1)
        await telegram.wait_until_confirmed()
        first = telegram.calls("getUpdates")
        offsets = [call.params.get("offset") for call in first]
        assert [offset for offset in offsets if offset is not None] == [100_000_002]
        assert all(call.params["limit"] == 100 for call in first)
        assert first[-1].params["timeout"] == 5
        assert first[-1].params["allowed_updates"] == ["message", "edited_message", "callback_query"]


async def test_ids_may_begin_anew_lower(telegram, ada, chat):
    """After a quiet week Telegram's ids may start lower: such messages are delivered and confirmed like any other."""
    adapter = make_adapter(telegram, pauses=replace(PAUSES, poll_timeout_s=1))
    async with running(adapter) as intake:
        telegram.say(ada, chat, "before")
        await intake.wait_for(1)
        await telegram.wait_until_confirmed()
        confirmed = len(telegram.calls("getUpdates"))
        await until(lambda: len(telegram.calls("getUpdates")) >= confirmed + 2)
        await telegram.outage("refuse")  # so that they wait there when the next poll comes
        telegram.world.next_update_id = 5
        telegram.say(ada, chat, "after")
        telegram.say(ada, chat, "and again")
        await telegram.outage(None)
        await intake.wait_for(3)
        await telegram.wait_until_confirmed()
    assert intake.texts == ["before", "after", "and again"]
    assert intake.duplicates == []


POISON = [
    {"message": None},
    {"message": {"message_id": 1}},
    {"message": {"message_id": 1, "date": 1, "chat": {"id": 1, "type": "private"}, "text": "no sender"}},
    {"edited_message": [1, 2, 3]},
    {"callback_query": "x"},
]


@pytest.mark.parametrize("body", POISON, ids=json.dumps)
async def test_poison_is_kept_and_passed(telegram, ada, chat, body):
    """An update that cannot be parsed is quarantined once, with its bytes, and confirmed; what follows is heard."""
    with capture_logs() as logs:
        async with running(make_adapter(telegram)) as intake:
            telegram.say(ada, chat, "before")
            telegram.inject(body)
            telegram.say(ada, chat, "after")
            await intake.wait_for(2)
            await telegram.wait_until_confirmed()
    ((account, raw, reason),) = intake.quarantined
    assert account == ACCOUNT
    assert json.loads(raw) == {"update_id": 100_000_002} | body
    assert reason
    assert intake.texts == ["before", "after"]
    assert len(events(logs, "adapter.update_quarantined")) == 1


@pytest.mark.parametrize(
    "body", [7, None, "text", [], {"update_id": "12"}, {"update_id": True}], ids=json.dumps
)
async def test_poison_without_an_id_does_not_spin(telegram, ada, chat, body):
    """What has no id cannot be confirmed alone: it is kept once, asked for slowly, and confirmed by what follows."""
    async with running(make_adapter(telegram)) as intake:
        telegram.inject(body, with_id=False)
        await intake.wait_until(lambda: bool(intake.quarantined))
        before = len(telegram.calls("getUpdates"))
        await asyncio.sleep(0.5)
        assert len(telegram.calls("getUpdates")) - before < 20
        assert len(intake.quarantined) == 1
        telegram.say(ada, chat, "after")
        await intake.wait_for(1)
        await telegram.wait_until_confirmed()
        assert len(intake.quarantined) == 1


async def test_kinds_nobody_knows_are_passed_over(telegram, ada, chat):
    """A kind of update of next year is neither delivered nor quarantined."""
    async with running(make_adapter(telegram)) as intake:
        telegram.inject({"hologram": {"from": 1}})
        telegram.say(ada, chat, "after")
        await intake.wait_for(1)
        await telegram.wait_until_confirmed()
    assert intake.texts == ["after"]
    assert intake.quarantined == []


async def test_an_update_that_is_no_json_is_kept_and_passed():
    """One update that no JSON reader takes is fetched alone, quarantined by the id its bytes show, and passed."""
    poison = b'{"ok":true,"result":[{"update_id":5,"message":' + b"[" * 200_000 + b"]" * 200_000 + b"}]}"
    offsets = []

    async def answer(request: web.Request) -> web.Response:
        form = await request.post()
        if request.path.endswith("getMe"):
            return ok({"id": 42, "is_bot": True, "first_name": "B", "username": "b"})
        if not request.path.endswith("getUpdates"):
            return ok(True)
        offsets.append(int(form.get("offset", 0)))
        if offsets[-1] == 6:
            body = {"update_id": 6, "message": plain_message("after")}
            return ok([body])
        if 7 in offsets:
            await asyncio.sleep(1)
            return ok([])
        return web.Response(body=poison, content_type="application/json")

    def ok(result: object) -> web.Response:
        return web.json_response({"ok": True, "result": result})

    async with (
        serving(answer) as url,
        running(make_adapter(FakeTelegram(), api_url=url), hearing=False) as intake,
    ):
        await intake.wait_for(1)
        await until(lambda: 7 in offsets)
    ((_, raw, _),) = intake.quarantined
    assert raw == poison
    assert intake.texts == ["after"]


def plain_message(text):
    ada = {"id": 7, "is_bot": False, "first_name": "Ada"}
    return {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"}, "from": ada, "text": text}


async def test_somebody_elses_page_passes(telegram, ada, chat):
    """Answers that are no JSON and belong to no update are waited out; nothing is quarantined."""
    telegram.fault("garbage", "getUpdates", count=6)
    telegram.say(ada, chat, "behind")
    async with running(make_adapter(telegram), hearing=False) as intake:
        await intake.wait_for(1)
    assert intake.texts == ["behind"]
    assert intake.quarantined == []


@pytest.mark.parametrize("fault", ["500", "502", "reset", "answer_lost", "429", "400", "403"])
async def test_failing_polls_are_outlived(telegram, ada, chat, fault):
    """Whatever befalls a poll, it is told, waited out and tried again; nothing is lost."""
    adapter = make_adapter(telegram)
    with capture_logs() as logs:
        async with running(adapter) as intake:
            telegram.fault(fault, "getUpdates", count=2)
            telegram.say(ada, chat, "one")
            await until(lambda: telegram.calls("getUpdates")[-1].fault is not None or bool(intake.messages))
            telegram.say(ada, chat, "two")
            await intake.wait_for(2)
            await until(lambda: adapter.health().state == "hearing")
            await telegram.wait_until_confirmed()
    assert intake.texts == ["one", "two"]
    assert events(logs, "adapter.reconnected")


@pytest.mark.parametrize("kind", ["refuse", "502"])
async def test_an_outage_is_told_once_and_outlived(telegram, ada, chat, kind):
    """An outage shows in health and once in the log; afterwards everything is heard, once."""
    adapter = make_adapter(telegram)
    with capture_logs() as logs:
        async with running(adapter) as intake:
            telegram.say(ada, chat, "before")
            await intake.wait_for(1)
            heard_at = adapter.health().last_heard_at
            await telegram.outage(kind)
            await until(lambda: adapter.health().state == "retrying")
            await asyncio.sleep(0.5)
            assert adapter.health().last_heard_at is not None
            assert adapter.health().last_heard_at >= heard_at
            telegram.say(ada, chat, "during")
            await telegram.outage(None)
            await intake.wait_for(2)
            await until(lambda: adapter.health().state == "hearing")
    assert intake.texts == ["before", "during"]
    assert intake.duplicates == []
    assert 1 <= len(events(logs, "adapter.failed")) <= 3
    assert len(events(logs, "adapter.reconnected")) == 1


def test_a_dead_platform_is_not_hammered():
    """With the pauses as shipped, a dead platform is asked at most once a second."""
    shipped = Pauses()
    for backoff in (shipped.network, shipped.refused, shipped.conflict):
        assert all(
            1 <= backoff.first_s <= backoff.delay_s(attempt) <= backoff.most_s for attempt in range(50)
        )
    assert shipped.least_poll_s >= 1


async def test_a_start_in_an_outage_waits_for_its_end(telegram, ada, chat):
    """Started while Telegram is down, the adapter says so and hears once it is back."""
    telegram.say(ada, chat, "early")
    await telegram.outage("refuse")
    adapter = make_adapter(telegram)
    async with running(adapter, hearing=False) as intake:
        await until(lambda: adapter.health().state == "retrying")
        await telegram.outage(None)
        await intake.wait_for(1)
        assert adapter.health().state == "hearing"


async def test_a_revoked_token_is_said_and_recovered_from(telegram, ada, chat):
    """401 is `refused`, with a hint, without the token; when the token works again, so does the account."""
    adapter = make_adapter(telegram)
    with capture_logs() as logs:
        async with running(adapter) as intake:
            telegram.revoke_token()
            telegram.say(ada, chat, "waiting")  # ends the poll under way
            await until(lambda: adapter.health().state == "refused")
            assert "BotFather" in adapter.health().detail
            telegram.revoke_token(False)
            await intake.wait_for(1)
            await until(lambda: adapter.health().state == "hearing")
    (refused,) = events(logs, "adapter.refused")
    assert "BotFather" in refused["hint"]
    assert telegram.token not in json.dumps(logs, default=str)


async def test_a_token_refused_from_the_start(telegram):
    """A wrong token is `refused` at once and never ends `run`."""
    adapter = make_adapter(telegram, token="999:WRONG")
    async with running(adapter, hearing=False):
        await until(lambda: adapter.health().state == "refused")
        await asyncio.sleep(0.3)
        assert adapter.health().state == "refused"


async def test_a_strangers_page_is_no_refused_token():
    """A login page with 404 in Telegram's place does not condemn the token, while polling neither."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=404, text="<html>please log in</html>", content_type="text/html")

    intake = RecordingIntake()
    await intake.set_cursor(ACCOUNT, IDENTITY_CURSOR, "123456:palaver_test_bot")
    async with serving(answer) as url:
        adapter = make_adapter(FakeTelegram(), api_url=url)
        async with running(adapter, intake, hearing=False):
            await until(lambda: adapter.health().state == "retrying")


async def test_another_poller_is_named(telegram, ada, chat):
    """When another program polls the same token, that is said, and the account hears on as soon as it may."""
    pauses = replace(PAUSES, conflict=Backoff(0.3, 0.5))
    adapter = make_adapter(telegram, pauses=pauses)
    with capture_logs() as logs:
        async with running(adapter) as intake:
            await until(lambda: telegram.calls("getUpdates")[-1].params.get("timeout") == 5)
            await asyncio.sleep(0.05)
            # the other program's poll ends ours
            await telegram.feed.get_updates(0, 1, 0, None)
            await until(lambda: adapter.health().state == "retrying")
            assert adapter.health().detail == "another program polls this token"
            assert not adapter.health().is_cut_off
            telegram.say(ada, chat, "after")
            await intake.wait_for(1)
    assert len(events(logs, "adapter.conflict_found")) == 1


async def test_a_left_over_webhook_is_removed(telegram, ada, chat):
    """A webhook somebody set earlier is taken away, and what waits at Telegram stays."""
    other = make_adapter(telegram)
    await other._bot.set_webhook("https://old.example.org/hook")
    await other.close()
    telegram.say(ada, chat, "waiting")
    with capture_logs() as logs:
        async with running(make_adapter(telegram)) as intake:
            await intake.wait_for(1)
    assert intake.texts == ["waiting"]
    (removal,) = telegram.calls("deleteWebhook")
    assert removal.params.get("drop_pending_updates") == "false"
    assert len(events(logs, "adapter.webhook_removed")) == 1
    assert events(logs, "adapter.conflict_found") == []


async def test_a_migration_moves_the_channel_once(telegram, ada):
    """Both notices of a migration arrive, and the channel is moved once, before what is said in the new one."""
    group = telegram.group("Old", [ada])
    async with running(make_adapter(telegram)) as intake:
        telegram.say(ada, group, "before")
        new = telegram.migrate(group)
        telegram.say(ada, new, "after")
        await intake.wait_for(2)
        await telegram.wait_until_confirmed()
    assert intake.moves == [(ACCOUNT, str(group.id), str(new.id))]
    assert [message.channel for message in intake.messages] == [str(group.id), str(new.id)]


async def test_a_move_that_fails_is_tried_again(telegram, ada):
    """A channel's move is as durable as a message."""
    group = telegram.group("Old", [ada])
    async with running(make_adapter(telegram)) as intake:
        await intake.wait_until(lambda: (ACCOUNT, "commands_hash") in intake.cursors)
        intake.fail_next()
        telegram.migrate(group)
        await intake.wait_until(lambda: bool(intake.moves))
        await telegram.wait_until_confirmed()
    assert len(intake.moves) == 1


async def test_buttons_are_answered_and_their_commands_delivered(telegram, ada, chat):
    """A pressed command is delivered and the press answered; other data is answered only."""
    adapter = make_adapter(telegram)
    keyboard = {
        "inline_keyboard": [[{"text": "Stop", "callback_data": "/stop"}, {"text": "1", "callback_data": "1"}]]
    }
    sent = await adapter._bot.send_message(
        chat.id, "choose", reply_markup=None, api_kwargs={"reply_markup": keyboard}
    )
    async with running(adapter) as intake:
        message = telegram.message(chat, sent.message_id)
        first, second = telegram.press(ada, message, "/stop"), telegram.press(ada, message, "1")
        await intake.wait_for(1)
        await until(lambda: {first, second} <= set(telegram.callback_answers()))
    assert intake.texts == ["/stop"]
    assert intake.messages[0].sender.display_name == "Ada"


async def test_a_button_that_cannot_be_answered_holds_nothing_up(telegram, ada, chat):
    """An answer to a press that fails or hangs does not keep the feed."""
    adapter = make_adapter(telegram)
    keyboard = {"inline_keyboard": [[{"text": "Stop", "callback_data": "/stop"}]]}
    sent = await adapter._bot.send_message(chat.id, "choose", api_kwargs={"reply_markup": keyboard})
    telegram.fault("hang", "answerCallbackQuery", count=None)
    async with running(adapter) as intake:
        telegram.press(ada, telegram.message(chat, sent.message_id), "/stop")
        telegram.say(ada, chat, "and on")
        await intake.wait_for(2)
        await telegram.wait_until_confirmed()
    assert intake.texts == ["/stop", "and on"]


async def test_groups_topics_edits_and_files_over_the_wire(telegram, ada):
    """What people do in a forum arrives as the table-driven tests say, on the real wire too."""
    forum = telegram.supergroup("Forum", [ada], forum=True)
    adapter = make_adapter(telegram, max_attachment_bytes=1000)
    async with running(adapter) as intake:
        topic = telegram.topic(forum, "Help")
        asked = telegram.say(ada, forum, "@palaver_test_bot how", thread=topic)
        telegram.edit(asked, "@palaver_test_bot how so")
        telegram.say(ada, forum, "among us", thread=topic)
        telegram.photo(ada, forum, caption="look", thread=topic)
        telegram.document(ada, forum, size=1001)
        telegram.sticker(ada, forum)
        telegram.say(ada, forum, "/help@palaver_test_bot")
        telegram.say(ada, forum, "/help@another_bot")
        messages = await intake.wait_for(8)
    assert [message.text for message in messages] == [
        "how", "how so", "among us", "look", "", "", "/help", "/help@another_bot",
    ]  # fmt: skip
    assert [message.is_addressed for message in messages] == [
        True,
        True,
        False,
        False,
        False,
        False,
        True,
        False,
    ]
    assert [message.thread for message in messages] == [str(topic)] * 4 + [None] * 4
    assert [message.is_edit for message in messages][:3] == [False, True, False]
    assert messages[0].message_id == messages[1].message_id
    assert messages[3].attachments[0].kind == "photo"
    assert [message.unsupported for message in messages] == [None] * 4 + ["too_large", "sticker", None, None]
    assert messages[7].is_command_for_other
    assert intake.quarantined == []


async def test_back_off_grows_and_begins_anew():
    """Each failure in a row waits longer; after a success the next failure waits as briefly as the first."""
    attempts = []

    class Noted(Backoff):
        def delay_s(self, attempt: int) -> float:
            attempts.append(attempt)
            return 0

    trouble = Trouble(ACCOUNT, Hearing(ACCOUNT), replace(PAUSES, network=Noted(1, 1)))
    for _ in range(3):
        await trouble.wait_out(OSError("down"))
    trouble.over()
    await trouble.wait_out(OSError("down again"))
    assert attempts == [0, 1, 2, 0]
