"""Who is behind a platform's user id, and the one word to strangers."""

from sessions import people
from tests.sessions.records import NOW, count, incoming, person_of

HOUR = 3_600_000


def row(tx, table: str):
    (found,) = tx.rows(f"SELECT * FROM {table}")
    return found


def test_a_person_is_met_once_and_known_again(tx):
    """The first message makes a person with one identity; the next finds both."""
    first = people.meet(tx, incoming(), NOW)
    assert (first.display_name, first.role, first.language) == ("Ada", "member", "en")
    assert people.meet(tx, incoming(), NOW + 5) == first
    assert (count(tx, "persons"), count(tx, "identities")) == (1, 1)


def test_the_same_id_on_another_platform_is_somebody_else(tx):
    """User ids belong to their platform; accounts of one platform share its people."""
    first = person_of(tx, incoming())
    assert person_of(tx, incoming(account="telegram.other")) == first
    assert person_of(tx, incoming(platform="discord", account="discord.main")) != first
    assert person_of(tx, incoming(user_id="user-2")) != first


def test_names_and_language_follow_the_platform(tx):
    """A new name, user name or language is kept at once; a message without a language takes none away."""
    people.meet(tx, incoming(), NOW)
    renamed = people.meet(tx, incoming(display_name="Ada L.", username=None, language=None), NOW + 1)
    assert (renamed.display_name, renamed.language) == ("Ada L.", "en")
    assert row(tx, "persons")["display_name"] == "Ada L."
    assert row(tx, "identities")["username"] is None
    assert people.meet(tx, incoming(display_name="Ada L.", language="de"), NOW + 2).language == "de"
    assert row(tx, "persons")["language"] == "de"


def test_last_seen_is_refreshed_now_and_then(tx):
    """Within an hour nothing is written; after it the time is."""
    people.meet(tx, incoming(), NOW)
    people.meet(tx, incoming(), NOW + HOUR)
    assert row(tx, "persons")["last_seen_at"] == NOW
    people.meet(tx, incoming(), NOW + HOUR + 1)
    assert row(tx, "persons")["last_seen_at"] == NOW + HOUR + 1


def test_strangers_are_told_once_until_they_were_welcome(tx):
    """Declined: told the first time only; after a welcome, once more. Nobody else's word is used up."""
    message = incoming()
    assert not people.meet(tx, message, NOW).was_told_declined
    people.meet(tx, incoming(user_id="user-2"), NOW)
    assert people.tell_declined_once(tx, "telegram", message.user_id, NOW) is True
    assert people.tell_declined_once(tx, "telegram", message.user_id, NOW) is False
    assert people.meet(tx, message, NOW).was_told_declined
    assert people.tell_declined_once(tx, "telegram", "user-2", NOW) is True
    people.forget_declined(tx, "telegram", message.user_id)
    assert not people.meet(tx, message, NOW).was_told_declined
    assert people.tell_declined_once(tx, "telegram", message.user_id, NOW) is True
    assert people.tell_declined_once(tx, "telegram", "nobody", NOW) is False


def test_roles_are_set_and_seen_with_the_next_message(tx):
    """A role belongs to the person; there is no role for nobody."""
    person = people.meet(tx, incoming(), NOW)
    assert people.set_role(tx, person.id, "operator") is True
    assert people.meet(tx, incoming(), NOW).role == "operator"
    assert people.set_role(tx, "nobody", "blocked") is False


def test_identities_are_those_of_the_person_alone(tx):
    """A person's identities, in a fixed order, and no other's."""
    person = people.meet(tx, incoming(), NOW)
    people.meet(tx, incoming(user_id="user-2"), NOW)
    (identity,) = people.identities(tx, person.id)
    assert (identity["platform"], identity["platform_user_id"], identity["display_name"]) == (
        "telegram",
        "user-1",
        "Ada",
    )
