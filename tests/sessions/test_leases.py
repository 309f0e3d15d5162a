"""Leases: one holder at a time, on the database's clock, and an epoch that refuses whoever comes late."""

import asyncio

import pytest

from config.names import AccountId
from sessions import leases, outbox
from sessions.database.postgres import PostgresDatabase
from sessions.errors import StaleLease
from sessions.leases import Lease, LeaseName
from tests import postgres
from tests.sessions.records import ACCOUNT
from tests.sessions.test_outbox import only, reply, row

NAME = LeaseName("send", ACCOUNT)
LONG_MS = 60_000


def claim(tx, node="one", length_ms=LONG_MS, name=NAME) -> Lease | None:
    return leases.claim(tx, name, node, length_ms)


def test_one_node_has_it_at_a_time(tx):
    """Whoever comes second gets nothing, nor does the holder a second time; another account is another lease."""
    first = claim(tx)
    assert (first.node, first.epoch) == ("one", 1)
    assert claim(tx, "two") is None
    assert claim(tx, "one") is None
    assert claim(tx, "two", name=LeaseName("send", AccountId("memory.other"))) is not None
    assert leases.holders(tx)[NAME] == "one"


def test_what_is_over_goes_to_the_next_with_the_next_epoch(tx):
    """After its end, or once given back, a lease is anybody's; epochs only rise."""
    first = claim(tx, length_ms=-1)
    second = claim(tx, "two")
    assert (first.epoch, second.epoch, second.node) == (1, 2, "two")
    leases.release(tx, first)
    assert leases.holders(tx)[NAME] == "two", "a former holder gives nothing back that is another's"
    leases.release(tx, second)
    assert leases.holders(tx) == {}
    assert claim(tx, "one").epoch == 3


def test_renewing_keeps_only_what_is_still_ours(tx):
    """Renewed are the leases that have not ended and were not taken over."""
    other = LeaseName("hear", ACCOUNT)
    kept, over = claim(tx), claim(tx, length_ms=-1, name=other)
    assert leases.renew(tx, [kept, over], LONG_MS) == [kept]
    claim(tx, "two", name=other)
    assert leases.renew(tx, [kept, over], LONG_MS) == [kept]
    assert leases.holders(tx) == {NAME: "one", other: "two"}


def test_a_late_sender_is_refused(tx):
    """The next owner finds what was under way as uncertain; the former one can begin nothing any more."""
    reply(tx, "text")
    first = only(tx)
    old = claim(tx, length_ms=-1)
    assert outbox.begin(tx, first.id, old), "over, but nobody else's yet"
    new = claim(tx, "two")
    assert outbox.recover(tx, ACCOUNT, new) == 1
    assert row(tx, first.id)["state"] == "uncertain"
    with pytest.raises(StaleLease):
        outbox.begin(tx, first.id, old)
    with pytest.raises(StaleLease):
        outbox.recover(tx, ACCOUNT, old)
    assert row(tx, first.id)["state"] == "uncertain"
    assert outbox.begin(tx, first.id, new)


def test_recovery_of_one_account_leaves_the_others(tx):
    """What another account's owner has under way is that owner's affair."""
    reply(tx, "text")
    chunk = only(tx)
    outbox.begin(tx, chunk.id)
    assert outbox.recover(tx, AccountId("memory.other")) == 0
    assert row(tx, chunk.id)["state"] == "sending"


def test_names_of_processes_that_are_gone_are_forgotten(tx):
    """What a process has for itself goes after an hour; an account's leases stay, for the sake of their epochs."""
    for name in (LeaseName("run", AccountId("one.a1")), LeaseName("live", AccountId("one.a1")), NAME):
        claim(tx, length_ms=-7_200_000, name=name)
    for kind in ("run", "live"):
        claim(tx, "one.b2", name=LeaseName(kind, AccountId("one.b2")))
    assert leases.nodes(tx) == ["one.b2"]
    assert leases.forget_nodes(tx) == 2
    left = tx.rows("SELECT kind, account FROM leases ORDER BY kind")
    assert [(one["kind"], one["account"]) for one in left] == [
        ("live", "one.b2"),
        ("run", "one.b2"),
        ("send", ACCOUNT),
    ]


async def test_of_many_that_ask_at_once_one_gets_it():
    """Four nodes claim the same ended lease at the same moment, again and again: one holder each time, epochs without a gap."""
    postgres.skip_without_server()
    with postgres.fresh_database() as url:
        nodes = [await PostgresDatabase.open_beside(url) for _ in range(4)]
        try:
            for epoch in range(1, 21):
                claims = await asyncio.gather(
                    *(
                        node.write(lambda tx, number=number: claim(tx, f"node-{number}"))
                        for number, node in enumerate(nodes)
                    )
                )
                held = [lease for lease in claims if lease is not None]
                assert [lease.epoch for lease in held] == [epoch]
                await nodes[0].write(lambda tx, lease=held[0]: leases.release(tx, lease))
        finally:
            for node in nodes:
                await node.close()
