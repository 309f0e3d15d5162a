"""Connections as psycopg's pool keeps them: whoever gets none hears at once why, and when it is mended the next one gets one."""

import concurrent.futures
import contextlib
import threading
import time

import psycopg
import pytest

from sessions.database.postgres_connections import Connections, Limits
from sessions.errors import StoreUnavailable
from tests import postgres
from tests.fakes.severing import SeveringRelay

pytestmark = pytest.mark.timeout(60)

AT_ONCE_S = 3.0
"""Long before anybody's patience ends: the limits below are ten times that."""
PATIENT = Limits(connect_s=30, answer_s=30)


@pytest.fixture
def url():
    with postgres.bare_database() as found:
        yield found


@contextlib.contextmanager
def kept(url, **how):
    connections = Connections(url, **{"limits": PATIENT} | how)
    try:
        yield connections
    finally:
        connections.close()


def process(connections):
    with connections.lent() as connection:
        return connection.process


def by_way_of(relay, url):
    port = psycopg.conninfo.conninfo_to_dict(url)["port"]
    return url.replace(f":{port}/", f":{relay.port}/")


def test_all_who_ask_while_there_is_no_server_hear_why_at_once(url):
    """Five threads at the same time: none waits for the others, and none for a connection that will not come."""
    nobody = url.replace("127.0.0.1", "127.0.0.2")
    with kept(nobody, most=5) as connections, concurrent.futures.ThreadPoolExecutor(5) as threads:
        for _ in range(2):
            began = time.monotonic()
            asking = [threads.submit(process, connections) for _ in range(5)]
            for one in asking:
                with pytest.raises(StoreUnavailable, match="refused"):
                    one.result()
            assert time.monotonic() - began < AT_ONCE_S


def test_the_first_who_asks_when_it_is_back_gets_one(url):
    """A network that is cut and mended: an idle connection is found dead by whoever uses it, and after that there are new ones."""
    port = int(psycopg.conninfo.conninfo_to_dict(url)["port"])
    with SeveringRelay(port) as relay, kept(by_way_of(relay, url)) as connections:
        before = process(connections)
        relay.cut()
        with pytest.raises(psycopg.OperationalError), connections.lent() as connection:
            connection.execute("SELECT 1")
        connections.renew()
        assert process(connections) != before


def test_one_is_lent_again_and_again(url):
    """What came back whole is what the next one gets, a transaction left open is ended, and a broken one goes to nobody."""
    with kept(url) as connections:
        first = process(connections)
        with pytest.raises(psycopg.errors.DivisionByZero), connections.lent() as connection:
            connection.execute("BEGIN; SELECT 1 / 0")
        with connections.lent() as connection:
            assert connection.process == first
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            connection.close()
        assert process(connections) != first
        assert first not in connections.processes()


def test_as_many_as_were_promised_side_by_side(url):
    """Each thread has a connection of its own, and there are no more of them than are asked for."""
    together = threading.Barrier(4)

    def hold(connections):
        with connections.lent() as connection:
            together.wait(timeout=10)
            return connection.process

    with kept(url, most=4) as connections, concurrent.futures.ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            asking = [threads.submit(hold, connections) for _ in range(4)]
            assert len({one.result() for one in asking}) == 4
        assert len(connections.processes()) == 4


def test_more_than_were_promised_are_refused(url):
    """Where all are lent and none comes back, waiting ends and says so."""
    with (
        kept(url, most=1, limits=Limits(answer_s=0.3)) as connections,
        connections.lent(),
        pytest.raises(StoreUnavailable, match=r"no connection for 0\.3 s"),
    ):
        process(connections)


def test_after_the_end_there_is_none(url):
    """Closed, nothing is left at the server, and who asks is told."""
    with kept(url) as connections:
        process(connections)
    assert connections.processes() == []
    with pytest.raises(StoreUnavailable, match="not used any more"):
        process(connections)
