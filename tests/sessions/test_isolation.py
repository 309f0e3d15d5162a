"""Nobody reads what is another's: every read takes a scope, and no scope shows a row beyond it."""

import ast
import importlib
import inspect
import pkgutil
import random
from collections.abc import Mapping

import pytest

import sessions
from config.names import AccountId, ChannelId, PersonId
from sessions import contents, history, inbox, lifecycle, search, statistics
from sessions.database.base import Transaction
from sessions.errors import SessionNotFound
from sessions.models import Session
from sessions.scope import ChannelScope, OperatorScope, PersonScope, Scope, SessionOnly
from sessions.statistics import Subject
from tests.sessions.records import NOW, arrive, claimed, incoming, resolved

READS_PER_SCOPE = 100_000
PEOPLE, CHANNELS, THREADS = 12, 4, (None, "", "1", "2")
SCOPES = ("person", "person_everywhere", "channel", "member")


def populate(tx: Transaction) -> list[Session]:
    """Sessions of every scope, person, account, channel and thread, each with words, a variable and a past of its own."""
    made: dict[str, Session] = {}
    for user in range(PEOPLE):
        for account in ("telegram.main", "telegram.other", "discord.main"):
            for number in range(CHANNELS):
                scope = SCOPES[(user + number) % len(SCOPES)]
                message = incoming(
                    "apples",
                    platform=account.partition(".")[0],
                    account=AccountId(account),
                    channel=ChannelId(f"c{number}"),
                    channel_kind="group" if scope in ("channel", "member") else "direct",
                    thread=THREADS[user % len(THREADS)],
                    user_id=f"user-{user}",
                    display_name=f"Person {user}",
                )
                queued = arrive(tx, message, scope=scope)
                inbox.finish(tx, claimed(tx, queued.session_id), "completed", NOW, answer="pears")
                session = resolved(tx, message, scope=scope)[0]
                if session.id not in made:
                    contents.set_variable(tx, session.id, "whose", session.id, NOW)
                made[session.id] = session
    for number, session in enumerate(list(made.values())):
        if number % 5 == 0:
            made[session.id] = lifecycle.end(tx, session, "reset", NOW)
        elif number % 5 == 1:
            made[session.id] = lifecycle.delete(tx, session, NOW)
    return list(made.values())


def may_see(scope: Scope, session: Session) -> bool:
    """What the scopes mean, written down apart from the SQL."""
    if isinstance(scope, OperatorScope):
        return True
    if session.end_reason == "deleted":
        return False
    match scope:
        case PersonScope():
            return session.person_id is not None and session.person_id == scope.person_id
        case ChannelScope():
            place = (session.account, session.channel, session.thread)
            return session.person_id is None and place == (scope.account, scope.channel, scope.thread)
        case SessionOnly():
            return session.id == scope.session_id


def anybody(sessions_made: list[Session], chance: random.Random) -> Scope:
    """Somebody who asks: a real person, place or session, a mixture of two, or one that is not there."""
    one, other = chance.choice(sessions_made), chance.choice(sessions_made)
    match chance.randrange(8):
        case 0 | 1:
            return PersonScope(one.person_id or PersonId(chance.choice(["", one.id, one.key, one.channel])))
        case 2 | 3:
            return ChannelScope(one.account, one.channel, one.thread)
        case 4:
            return ChannelScope(one.account, other.channel, chance.choice([other.thread, None]))
        case 5:
            return SessionOnly(one.id)
        case 6:
            return PersonScope(PersonId(chance.choice(["%", "_", "' OR 1=1 --", "nobody", other.id])))
        case _:
            return ChannelScope(AccountId(one.channel), ChannelId(one.account), one.thread)


def read_all_ways(tx: Transaction, asked: Session, scope: Scope, way: int) -> list[str]:
    """Ids of the sessions that one of the scoped reads shows."""
    match way:
        case 0:
            try:
                return [lifecycle.find(tx, asked.id, scope).id]
            except SessionNotFound:
                return []
        case 1:
            page = history.page(tx, asked.key, scope, size=2)
            assert bool(page.total) == bool(page.messages)
            return [message.session_id for message in page.messages]
        case 2:
            found = search.search(tx, scope, search.SearchQuery("apples", session_id=asked.id, size=1))
            assert bool(found.total) == bool(found.hits)
            return [hit.message.session_id for hit in found.hits]
        case 3:
            return list(contents.variables(tx, asked.id, scope).values())
        case 4:
            return [session.id for session in lifecycle.list_sessions(tx, scope, limit=3)]
        case _:
            read = statistics.read(tx, scope, Subject("session", asked.id), NOW)
            assert bool(read.sessions) == bool(read.messages) == bool(read.turns)
            person = statistics.read(tx, scope, Subject("person", asked.person_id or "nobody"), NOW)
            is_own = isinstance(scope, OperatorScope) or scope == PersonScope(
                asked.person_id or PersonId("?")
            )
            assert is_own or not (person.sessions or person.messages or person.turns)
            return [asked.id] if read.messages else []


@pytest.mark.timeout(120)
def test_random_reads_show_nothing_beyond_the_scope(any_tx):
    """A hundred thousand reads in every way by people, channels and sessions, mostly wrong ones: never a foreign row."""
    made = populate(any_tx)
    by_id = {session.id: session for session in made}
    assert {session.scope for session in made} == set(SCOPES)
    chance = random.Random(20_261_120)
    wrong = right = 0
    for number in range(READS_PER_SCOPE):
        scope, asked, way = anybody(made, chance), chance.choice(made), number % 6
        if way in (2, 4, 5) and number // 6 % 10:  # dearer than the rest; a tenth of them is plenty
            way = 0
        shown = read_all_ways(any_tx, asked, scope, way)
        for session_id in shown:
            assert may_see(scope, by_id[session_id]), (number, scope, asked, way)
            assert way == 4 or by_id[session_id].key == asked.key
        if way in (0, 2, 3, 5):
            assert bool(shown) == may_see(scope, asked), (number, scope, asked, way)
        wrong += not shown
        right += bool(shown)
    assert wrong > READS_PER_SCOPE // 2
    assert right > READS_PER_SCOPE // 100


def test_each_scope_shows_all_of_its_own(tx):
    """The other half: what a scope may see, it gets, whole and nothing else."""
    made = populate(tx)
    scopes: set[Scope] = {OperatorScope()}
    for session in made:
        scopes |= {SessionOnly(session.id), ChannelScope(session.account, session.channel, session.thread)}
        if session.person_id is not None:
            scopes.add(PersonScope(session.person_id))
    for scope in scopes:
        shown = {session.id for session in lifecycle.list_sessions(tx, scope, limit=1000)}
        assert shown == {session.id for session in made if may_see(scope, session)}, scope


@pytest.fixture
def any_tx():
    """One transaction on SQLite: the conditions are the same text on every database, and this is the quickest."""
    from tests.sessions.stores import TRANSACTIONS

    with TRANSACTIONS["sqlite"]() as tx:
        yield tx


# no read without a scope

WITHOUT_SCOPE: Mapping[str, str] = {
    # for whoever runs the daemon, and by the daemon on its own
    "history.trace": "the story of a message, which `palaver why` tells the operator",
    "cleanup.clean_up": "touches sessions whosoever, and gives a number",
    "cleanup.due": "the same, only counting",
    "cleanup.purge": "removes a session that is due; gives nothing",
    "lifecycle.move_channel": "a platform's word that a channel has another id; gives a number",
    "search.index_pending": "keeps the index up to date; gives a number",
    "search.has_pending": "the same; gives yes or no",
    "semantic.pending": "texts for the encoder on this machine, which makes numbers of them",
    "semantic.save": "keeps those numbers; gives how many",
    "retention.list_people": "whom the bot has met, with numbers, for the operator",
    "retention.outdated": "ids of sessions with messages past their time",
    "retention.forget_before": "removes those messages; gives a number",
    "retention.empty_turns": "removes turns of a session; gives numbers",
    # by the key that the gateway makes of who wrote where
    "lifecycle.resolve": "makes the key from the very message and person it is for",
    "lifecycle.find_live": "by a key, which only its person's or channel's messages lead to",
    "inbox.unfinished_sessions": "by such a key too; gives ids for a stop",
    "inbox.replace_text": "a message's own text, by (account, channel, message id) of its author's edit",
    # by a turn of the session itself
    "inbox.claim": "a lane's own turn, by the session's id from the store itself",
    "inbox.conversation_until": "part of `claim`",
    "inbox.mark_noticed": "a turn's own place, by the turn's id",
    "summaries.plan": "a session's own messages, for the summary that stays in it",
    "summaries.plan_again": "the same, to make them anew",
    "summaries.stretch": "the same, piece by piece",
    "summaries.store": "puts them back into that very session",
    # changes of a session that the caller has found through a scope
    "contents.merge_metadata": "gives what it changed",
}
"""Functions that touch these tables without a `scope` parameter, and why that shows nobody another's words."""

PROTECTED = ("sessions", "messages", "session_variables")


def public_functions_that_read() -> dict[str, bool]:
    """Public functions of `sessions` (not of its database drivers) whose SQL reads a protected table: has it a scope?

    SQL of a private function counts for each public function of the module that calls it. A `Session` or a `Claim` is as good
    as a scope: nobody has one who was not given it.
    """
    found: dict[str, bool] = {}
    for info in pkgutil.walk_packages(sessions.__path__, "sessions."):
        if info.ispkg or info.name.startswith("sessions.database."):
            continue
        module = importlib.import_module(info.name)
        place = info.name.removeprefix("sessions.")
        tree = ast.parse(inspect.getsource(module))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        reads = {name for name, node in functions.items() if _reads_protected(node)}
        while True:
            more = {
                name
                for name, node in functions.items()
                if name not in reads
                and any(
                    isinstance(part, ast.Call)
                    and isinstance(part.func, ast.Name)
                    and part.func.id in reads
                    and part.func.id.startswith("_")
                    for part in ast.walk(node)
                )
            }
            if not more:
                break
            reads |= more
        for name in reads:
            if not name.startswith("_"):
                arguments = functions[name].args
                kinds = {
                    ast.unparse(argument.annotation)
                    for argument in [*arguments.args, *arguments.kwonlyargs]
                    if argument.annotation is not None
                }
                found[f"{place}.{name}"] = bool(kinds & {"Scope", "Session", "Claim"})
    return found


def _reads_protected(function: ast.FunctionDef) -> bool:
    """Whether a string in it selects or returns columns from one of the tables. Asking whether a session is there gives none."""
    pieces = [
        part.value
        for part in ast.walk(function)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    text = " ".join(" ".join(pieces).split()).replace("SELECT 1 AS x FROM sessions WHERE id = :id", "")
    for table in PROTECTED:
        for word in (f"FROM {table} ", f"JOIN {table} ", f"FROM {table},", f"UPDATE {table} SET"):
            if word in f"{text} " and ("SELECT" in text or "RETURNING" in text):
                return True
    return False


def test_the_search_for_reads_finds_them():
    """The inspection itself works: it sees the reads we know, and only with a `Scope` are they good."""
    found = public_functions_that_read()
    assert found["history.page"] and found["search.search"]
    assert found["lifecycle.find"] and found["lifecycle.list_sessions"] and found["contents.variables"]
    assert found["lifecycle.find_live"] is False
    assert len(found) > 12


def test_every_read_takes_a_scope_or_is_on_the_list():
    """A new function that reads conversations without a scope fails here, until somebody wrote down why it may."""
    found = public_functions_that_read()
    unscoped = {name for name, has_scope in found.items() if not has_scope}
    assert unscoped - set(WITHOUT_SCOPE) == set(), "takes no scope"
    assert set(WITHOUT_SCOPE) - unscoped == set(), "on the list without need"
