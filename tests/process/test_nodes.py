"""Two and three nodes on one PostgreSQL database: one owner for each account, and the next takes over when it is gone."""

import contextlib

from tests import postgres
from tests.process.counterparties import PEOPLE
from tests.process.invariants import check
from tests.process.nodes import LEASE_S, Fleet, answered_after
from tests.process.talk import Talk

TAKEOVER_S = LEASE_S + 5


@contextlib.asynccontextmanager
async def fleet(folder, platform="telegram", **sections):
    postgres.skip_without_server()
    with postgres.fresh_database() as url:
        async with PEOPLE[platform]() as people, Fleet(folder, url, people, **sections) as nodes:
            yield nodes, await Talk.begin(people, 3)


async def findings_of(nodes, talk, *, excused=()):
    people = nodes.people
    return check(
        nodes.url,
        f"{people.platform.name}.main",
        people.platform,
        talk.said,
        await talk.shown(),
        logs=[node.log for node in nodes.nodes.values()],
        secrets=people.secrets,
        excused=excused,
    )


async def test_the_next_node_takes_over_after_kill_9(tmp_path):
    """The owner dies: within the lease and five seconds the other node hears and answers, and nothing is lost."""
    async with fleet(tmp_path) as (nodes, talk):
        await nodes.start("one", "two")
        owner, other = await nodes.owner()
        await answered_after(talk, owner)
        owner.kill()
        assert await answered_after(talk, other) < TAKEOVER_S
        assert (await nodes.owner())[0] is other
        assert (await findings_of(nodes, talk)).violations == []
