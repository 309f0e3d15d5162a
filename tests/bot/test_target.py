"""Where a chunk goes, in the adapter's words."""

from bot.delivery import target_of
from config.names import AccountId, ChannelId, PlatformMessageId
from sessions.models import Address


def test_only_the_first_chunk_refers_to_the_question_and_every_one_names_it():
    """Later chunks follow the first without a reference, but can be looked up after the question they answer."""
    question = PlatformMessageId("41")
    address = Address(AccountId("discord.guild"), ChannelId("7"), "group", None, question, None, inbox_id=1)
    first, later = target_of(address, 0), target_of(address, 1)
    assert (first.reply_to, first.answers) == (question, question)
    assert (later.reply_to, later.answers) == (None, question)
