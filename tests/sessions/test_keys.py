"""Which messages share a session: the key says it, and no two different answers have the same key."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.keys import choose_scope, session_key

WORDS = st.text(max_size=8) | st.sampled_from(
    ["", "a", 'a","b', "null", '"', "[]", "\\", ",", "\x00", "é", "e\u0301"]
)
THREADS = st.none() | WORDS
PLACES = st.tuples(
    st.sampled_from(["person", "person_everywhere", "channel", "member"]), WORDS, WORDS, THREADS, WORDS
)


def what_matters(scope, account, channel, thread, person):
    """The parts of a place that decide, written down apart from the code."""
    return {
        "person": (scope, account, person, thread),
        "person_everywhere": (scope, person),
        "channel": (scope, account, channel, thread),
        "member": (scope, account, channel, thread, person),
    }[scope]


@given(one=PLACES, other=PLACES)
def test_keys_are_equal_exactly_if_what_matters_is(one, other):
    """Injective: no characters in an id can make two sessions one, or one session two."""
    assert (session_key(*one) == session_key(*other)) == (what_matters(*one) == what_matters(*other))


def test_small_differences_in_every_part_make_different_keys():
    """All combinations of small parts, the dangerous neighbours among them: as many keys as there are answers."""
    parts = ["", "a", "b", 'a","b', "a,b"]
    places = list(
        itertools.product(
            ["person", "person_everywhere", "channel", "member"], parts, parts, [None, *parts], parts
        )
    )
    keys = {session_key(*place): what_matters(*place) for place in places}
    assert len(keys) == len({what_matters(*place) for place in places})
    assert all(keys[session_key(*place)] == what_matters(*place) for place in places)


@pytest.mark.parametrize(
    ("kind", "direct", "group", "scope"),
    [
        ("direct", "person", "channel", "person"),
        ("direct", "person_everywhere", "person", "person_everywhere"),
        ("group", "person", "channel", "channel"),
        ("group", "person_everywhere", "person", "member"),
    ],
)
def test_the_scope_follows_kind_and_policy(kind, direct, group, scope):
    """A group never gets a direct scope, a direct channel never a group's."""
    assert choose_scope(kind, direct, group) == scope
