"""Two and three nodes on one PostgreSQL database: one owner for each account, and the next takes over when it is gone."""

import asyncio
import contextlib
import json
import random
import signal
import time
from functools import partial
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import postgres
from tests.fakes.balancing import Balancer
from tests.fakes.severing import SeveringRelay
from tests.process import fleet_load, moved_clock
from tests.process.counterparties import PEOPLE
from tests.process.daemon import LEASE_S, eventually
from tests.process.invariants import check
from tests.process.nodes import Fleet, answered_after
from tests.process.nursery import NurseryDaemon
from tests.process.talk import Talk

TAKEOVER_S = LEASE_S + 5


@pytest.fixture
def make(nursery):
    """Nodes that start quickly."""
    return partial(NurseryDaemon, nursery)


@pytest.fixture
def fleet(make):
    return partial(make_fleet, make)


@contextlib.asynccontextmanager
async def make_fleet(make, folder, platform="telegram", **sections):
    postgres.skip_without_server()
    with postgres.fresh_database() as url:
        async with PEOPLE[platform]() as people, Fleet(folder, url, people, make=make, **sections) as nodes:
            yield nodes, await Talk.begin(people, 3)


async def violations(nodes, talk, *, excused=()):
    people = nodes.people
    findings = check(
        nodes.url,
        f"{people.platform.name}.main",
        people.platform,
        talk.said,
        await talk.shown(),
        logs=[node.log for node in nodes.nodes.values()],
        secrets=people.secrets,
        excused=excused,
    )
    return findings.violations


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_next_node_takes_over(fleet, tmp_path, fault):
    """The owner dies or freezes in the middle of a turn: within the lease and five seconds the other node answers, that turn too."""
    async with fleet(tmp_path) as (nodes, talk):
        await nodes.start("one", "two")
        owner, other = await nodes.owner()
        await answered_after(talk, owner)
        await talk.say(talk.chats[1], "delay=1")
        await eventually(
            lambda: nodes.rows("SELECT 1 FROM turns WHERE status = 'running'"), timeout_s=5, what="running"
        )
        owner.send(fault)
        assert await answered_after(talk, other) < TAKEOVER_S
        assert (await nodes.owner())[0] is other
        if fault == signal.SIGSTOP:  # it wakes up, finds its leases gone, and what it still has is refused
            owner.send(signal.SIGCONT)
            await eventually(
                lambda: asyncio.to_thread(owner.said, "node.lease_lost"),
                timeout_s=10,
                what="its loss noticed",
            )
            await answered_after(talk, other)
            assert (await nodes.owner())[0] is other
            assert await owner.stop() == 0
        assert await other.stop() == 0
        assert await violations(nodes, talk) == []


async def test_a_node_that_stops_gives_its_accounts_back(fleet, tmp_path):
    """SIGTERM at the owner: the other hears long before the lease could end, the running turn is finished, nothing is lost."""
    async with fleet(tmp_path, node={"lease_s": 60}) as (nodes, talk):
        await nodes.start("one", "two")
        owner, other = await nodes.owner()
        await answered_after(talk, owner)
        await talk.say(talk.chats[1], "delay=1")
        await eventually(
            lambda: nodes.rows("SELECT 1 FROM turns WHERE status = 'running'"), timeout_s=5, what="running"
        )
        owner.send(signal.SIGTERM)
        assert await answered_after(talk, other) < 6
        assert await owner.ended() == 0
        await talk.wait_answered(other, timeout_s=10)
        assert (await nodes.owner())[0] is other
        assert await other.stop() == 0
        assert await violations(nodes, talk) == []


async def test_a_node_cut_off_from_the_platform_passes_its_account_on(fleet, tmp_path):
    """The owner reaches the database but not the platform any more: another node hears and answers; nothing is lost or doubled."""
    async with fleet(tmp_path, node={"pass_on_after_s": 2}) as (nodes, talk):
        account = nodes.people.account()
        port = urlsplit(account["api_url"]).port
        with SeveringRelay(port) as one, SeveringRelay(port) as two:
            ways = {"one": one, "two": two}
            for name, way in ways.items():
                url = account["api_url"].replace(f":{port}", f":{way.port}")
                nodes.add(name, accounts={"main": {"api_url": url}}).launch()
            await asyncio.gather(*(node.wait_ready() for node in nodes.nodes.values()))
            owner, other = await nodes.owner()
            await answered_after(talk, owner)
            ways[owner.config.stem].refuse()
            await answered_after(talk, other)
            assert (await nodes.owner())[0] is other
            passed_on = {
                line["lease"] for line in await asyncio.to_thread(owner.said, "node.lease_passed_on")
            }
            assert passed_on == {"hear telegram.main", "send telegram.main"}
            ways[owner.config.stem].recover()
            assert await other.stop() == 0
            await answered_after(talk, owner)
            assert await owner.stop() == 0
        assert await violations(nodes, talk) == []


async def test_one_node_polls_at_any_time(fleet, tmp_path):
    """Two nodes, one token: Telegram never meets a second poller, at the start, in peace and at a handover."""
    async with fleet(tmp_path) as (nodes, talk):
        await nodes.start("one", "two")
        owner, other = await nodes.owner()
        await answered_after(talk, owner)
        await owner.stop()
        await answered_after(talk, other)
        await nodes.nodes[owner.config.stem].start()
        await answered_after(talk, other)
        assert not any(
            node.said("adapter.conflict_found", since_start=False) for node in nodes.nodes.values()
        )
        report = await nodes.nodes[owner.config.stem].readiness()
        account = report["accounts"]["telegram.main"]
        assert (report["status"], account["state"]) == ("ready", "elsewhere")
        assert account["heard_by"].startswith(other.config.stem)


async def test_a_fleet_with_divided_roles_answers(fleet, tmp_path):
    """One node hears, another runs the turns, a third sends: what is said is answered, and each does its part only."""
    async with fleet(tmp_path, "memory") as (nodes, talk):
        for role in ("intake", "turns", "delivery"):
            nodes.add(role).launch("--roles", role)
        for node in nodes.nodes.values():
            await node.wait_ready()
        for chat in talk.chats:
            await talk.say(chat)
        await talk.wait_answered(nodes.nodes["delivery"], timeout_s=15)
        began = time.monotonic()
        await answered_after(talk, nodes.nodes["delivery"])
        assert time.monotonic() - began < 1.0, "hints are quicker than two looks, of a second each"
        ran = await nodes.rows("SELECT DISTINCT node FROM turns")
        assert [row["node"].rpartition(".")[0] for row in ran] == ["turns"]
        sent = {
            name for name, node in nodes.nodes.items() if 'outcome="sent"' in (await node.get("/metrics"))[1]
        }
        assert sent == {"delivery"}, "one pace for all: replies leave through the account's owner"
        holders = [await nodes.holder(kind) for kind in ("hear", "send", "upkeep")]
        assert holders == ["intake", "delivery", "turns"]
        await talk.say(talk.chats[0], "delay=30")
        await eventually(
            lambda: nodes.rows("SELECT 1 FROM turns WHERE status = 'running'"), timeout_s=5, what="running"
        )
        began = time.monotonic()
        await nodes.people.say(talk.chats[0], "/stop")
        await eventually(
            lambda: nodes.rows("SELECT 1 FROM turns WHERE status = 'cancelled'"), timeout_s=5, what="stopped"
        )
        assert time.monotonic() - began < 4
        assert [await node.stop() for node in nodes.nodes.values()] == [0, 0, 0]


async def test_a_node_without_its_database_stops_in_time(fleet, tmp_path):
    """The network between the owner and the database is cut: it stops hearing, says so, the other takes over, and it heals."""
    async with fleet(tmp_path) as (nodes, talk):
        port = psycopg.conninfo.conninfo_to_dict(nodes.url)["port"]
        with SeveringRelay(int(port)) as relay:
            owner = nodes.add("one", database_url=nodes.url.replace(f":{port}/", f":{relay.port}/"))
            await owner.start()
            await answered_after(talk, owner)
            (other,) = await nodes.start("two")
            relay.fall_silent()
            assert await answered_after(talk, other) < TAKEOVER_S
            assert await owner.status("/readyz") == 503
            assert "failed" in (await owner.readiness())["store"]
            relay.recover()
            await owner.wait_ready(timeout_s=20)
            await answered_after(talk, other)
            assert await owner.stop() == 0
        assert await other.stop() == 0
        assert await violations(nodes, talk) == []


async def test_a_database_that_only_reads_is_not_ready(fleet, tmp_path):
    """What was the primary takes nothing any more but answers: /readyz says so, nothing is acknowledged, and it heals."""
    async with fleet(tmp_path) as (nodes, talk):
        (node,) = await nodes.start("one")
        await answered_after(talk, node)
        name = psycopg.conninfo.conninfo_to_dict(nodes.url)["dbname"]

        async def turn(setting):
            with psycopg.connect(postgres.server_url(), autocommit=True) as admin:
                admin.execute(f'ALTER DATABASE "{name}" {setting}')
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
                )

        async def is_said():
            status, body = await node.get("/readyz")
            return status == 503 and "is read-only" in json.loads(body)["store"]

        await turn("SET default_transaction_read_only = on")
        try:
            await talk.say(talk.chats[0])
            await eventually(is_said, timeout_s=10, what="that it is read-only")
            await asyncio.sleep(LEASE_S + 1)  # its leases are over: also a node that hears nobody tells it
            assert await is_said()
            node.kill()  # whatever it had acknowledged would be gone
        finally:
            await turn("RESET default_transaction_read_only")
        await node.start()
        await talk.wait_answered(node, timeout_s=TAKEOVER_S)
        assert await node.stop() == 0
        assert await violations(nodes, talk) == []


@pytest.mark.parametrize("direction", [signal.SIGUSR1, signal.SIGUSR2], ids=["ahead", "back"])
async def test_a_clock_that_is_moved_by_an_hour_moves_nothing_else(fleet, tmp_path, direction):
    """The owner's clock jumps in the middle of a turn: it stays the owner, what it does is answered, and after its death the
    other node, an hour apart, takes over as soon as ever.
    """
    async with fleet(tmp_path) as (nodes, talk):
        for name in ("one", "two"):
            nodes.add(name).launch(command=moved_clock.COMMAND)
        await asyncio.gather(*(node.wait_ready() for node in nodes.nodes.values()))
        owner, other = await nodes.owner()
        await answered_after(talk, owner)
        epochs = "SELECT kind, epoch FROM leases WHERE kind <> 'run' ORDER BY kind"
        before = await nodes.rows(epochs)
        await talk.say(talk.chats[1], "delay=1 tool=clock")
        await talk.say(talk.chats[1])
        await eventually(
            lambda: nodes.rows("SELECT 1 FROM turns WHERE status = 'running'"), timeout_s=5, what="running"
        )
        owner.send(direction)
        assert await answered_after(talk, owner) < TAKEOVER_S
        await asyncio.sleep(LEASE_S + 1)  # a lease that counted the owner's hours would be over, or never end
        assert await answered_after(talk, owner) < TAKEOVER_S
        assert not owner.said("node.lease_lost")
        assert await nodes.rows(epochs) == before
        await talk.say(talk.chats[2], "delay=1")
        await eventually(
            lambda: nodes.rows("SELECT 1 FROM turns WHERE status = 'running'"), timeout_s=5, what="running"
        )
        owner.kill()
        assert await answered_after(talk, other) < TAKEOVER_S
        assert (await nodes.owner())[0] is other
        assert await other.stop() == 0
        # The hours that are written down are apart; the order that people saw is compared all the same.
        found = await violations(nodes, talk)
        assert [one for one in found if not one.endswith("turns ended out of order")] == []


async def test_restarting_one_after_the_other_loses_nothing(fleet, tmp_path):
    """People write all the time while each node is stopped and started again: each is answered once, in order, soon."""
    async with fleet(tmp_path, "memory", node={"lease_s": 60}) as (nodes, talk):
        await nodes.start("one", "two")
        await nodes.owner()
        is_over = asyncio.Event()
        rng = random.Random(7)

        async def write():
            while not is_over.is_set():
                await talk.say_something(rng)
                await asyncio.sleep(0.1)

        writing = asyncio.create_task(write())
        try:
            for node in nodes.nodes.values():
                await asyncio.sleep(0.5)
                assert await node.stop(timeout_s=20) == 0
                await node.start()
                await asyncio.sleep(0.5)
        finally:
            is_over.set()
            await writing
        await talk.wait_answered(nodes.nodes["two"], timeout_s=20)
        longest = await nodes.rows("SELECT MAX(started_at - queued_at) AS ms FROM turns")
        assert longest[0]["ms"] < 10_000, "far less than the lease: it was given back, not waited for"
        assert [await node.stop() for node in nodes.nodes.values()] == [0, 0]
        assert await violations(nodes, talk) == []


async def test_a_webhook_that_meets_the_wrong_node_comes_again(fleet, tmp_path):
    """Two of three calls reach nodes that do not hear the account, one of which then becomes the owner: all is answered, in order."""
    async with Balancer() as balancer:
        account = {"main": {"webhook_url": balancer.url}}
        async with fleet(tmp_path, accounts=account) as (nodes, talk):
            await nodes.start("one", "two")
            (runner,) = await nodes.start("runner", node={"roles": ["turns"]})
            owner, other = await nodes.owner()
            balancer.nodes = [f"http://127.0.0.1:{node.port}" for node in (owner, other, runner)]
            for _ in range(3):
                for chat in talk.chats:
                    await talk.say(chat)
            await talk.wait_answered(owner, timeout_s=20)
            assert set(balancer.answers) == {200, 503}
            owner.kill()
            for chat in talk.chats:
                await talk.say(chat)
            await talk.wait_answered(other, timeout_s=TAKEOVER_S)
            assert set(balancer.answers) == {200, 502, 503}
            assert [await node.stop() for node in (other, runner)] == [0, 0]
            assert await violations(nodes, talk) == []


async def test_what_the_owner_has_no_place_for_runs_elsewhere_at_once(make, tmp_path):
    """One node hears everybody and has two places for turns: the other node runs as many beside it, and nobody waits for long."""
    postgres.skip_without_server()
    with postgres.fresh_database() as url:
        async with (
            PEOPLE["memory"]() as people,
            Fleet(tmp_path, url, people, make=make, turns={"max_running": 2}) as nodes,
        ):
            talk = await Talk.begin(people, 4)
            await nodes.start("one", "two")
            owner, other = await nodes.owner()
            for chat in talk.chats:
                await talk.say(chat, "delay=1.5")
            await talk.wait_answered(owner, timeout_s=20)
            ran = await nodes.rows(
                "SELECT node, COUNT(*) AS n, MAX(started_at - queued_at) AS waited FROM turns GROUP BY node"
            )
            shares = {row["node"].rpartition(".")[0]: row["n"] for row in ran}
            assert shares == {owner.config.stem: 2, other.config.stem: 2}
            assert max(row["waited"] for row in ran) < 1000, "a hint, not the next look or the end of a turn"
            assert [await node.stop() for node in nodes.nodes.values()] == [0, 0]
            assert await violations(nodes, talk) == []


async def test_the_pace_is_the_fleets(fleet, tmp_path):
    """One message a second for the account: also over a takeover, the next owner counts what the one before has sent."""
    pace = {"main": {"pace": {"per_account_per_s": 1.0}}}
    async with fleet(tmp_path, "memory", accounts=pace) as (nodes, talk):
        await nodes.start("one", "two")
        owner, other = await nodes.owner()
        for number in range(6):
            await talk.say(talk.chats[number % 3])
        await eventually(
            lambda: nodes.rows("SELECT 1 FROM outbox WHERE state = 'sent' LIMIT 1"), timeout_s=10, what="sent"
        )
        owner.send(signal.SIGTERM)
        await talk.wait_answered(other, timeout_s=20)
        span = await nodes.rows("SELECT MAX(sent_at) - MIN(sent_at) AS ms FROM outbox")
        assert span[0]["ms"] > 4500, "six messages, five pauses"
        assert await other.stop() == 0


async def test_a_start_without_the_database_says_what_to_do(tmp_path):
    """Nobody listens at database_url: exit code 69, the reason and the setting in two lines, no password, and no traceback."""
    async with PEOPLE["memory"]() as people:
        nodes = Fleet(tmp_path, "postgresql://palaver:hidden-words@127.0.0.1:1/palaver", people)
        async with nodes:
            node = nodes.add("one")
            node.launch()
            assert await node.ended() == 69
            told = node.log.read_text()
        assert "database: cannot connect to PostgreSQL database 'palaver' on 127.0.0.1:1" in told
        assert "database_url" in told
        assert "hidden-words" not in told
        assert "Traceback" not in told


@pytest.mark.parametrize("nodes", [2, 3])
async def test_many_people_at_once_on_several_nodes(tmp_path, nodes):
    """More than is answered at once, mixed over the sessions: none lost, none twice, each session in order and one at a time."""
    postgres.skip_without_server()
    load = await fleet_load.run(tmp_path, nodes=nodes, sessions=40, messages=5, timeout_s=90)
    print(load.line())
    assert load.violations == []
    assert sum(load.ran.values()) == 200
