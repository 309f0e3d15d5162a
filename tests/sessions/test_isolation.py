"""Nobody reads what is another's: every read takes a scope, and no scope shows a row beyond it."""

import ast
import importlib
import inspect
import itertools
import os
import pkgutil
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pytest

import sessions
from config.names import AccountId, ChannelId, PersonId
from sessions import contents, history, lane, lifecycle, search, semantic, statistics, terms
from sessions.database.base import Transaction
from sessions.errors import SessionNotFound
from sessions.keys import archive_key, is_archive
from sessions.models import Session
from sessions.scope import ChannelScope, OperatorScope, PersonScope, Scope, SessionOnly
from sessions.search import SearchQuery
from sessions.statistics import Subject
from sessions.transfer import exporting
from tests.sessions.records import NOW, arrive, claimed, incoming, resolved

READS = {"sqlite": 100_000, "postgresql": int(os.environ.get("PALAVER_TEST_READS", "15000"))}
"""PostgreSQL filters by itself as well, so a read takes longer there: PALAVER_TEST_READS=100000 is a minute or two."""
PEOPLE, CHANNELS, THREADS = 12, 4, (None, "", "1", "2")
SCOPES = ("person", "person_everywhere", "channel", "member")
VECTOR = struct.pack("<4e", 1, 0, 0, 0)


@dataclass
class World:
    """Sessions of every scope, and whose each turn, message and device is."""

    sessions: list[Session]
    by_turn: dict[str, str] = field(default_factory=dict)
    by_message: dict[int, str] = field(default_factory=dict)
    by_device: dict[str, str] = field(default_factory=dict)


def populate(tx: Transaction) -> World:
    """Sessions of every scope, person, account, channel and thread, each with one of everything that a session can have."""
    made: dict[str, Session] = {}
    world = World([])
    for user in range(PEOPLE):
        for account in ("telegram.main", "telegram.other", "discord.main"):
            for number in range(CHANNELS):
                scope = SCOPES[(user + number) % len(SCOPES)]
                device = f"{account} {number} {user}"
                message = incoming(
                    "apples",
                    platform=account.partition(".")[0],
                    account=AccountId(account),
                    channel=ChannelId(f"c{number}"),
                    channel_kind="group" if scope in ("channel", "member") else "direct",
                    thread=THREADS[user % len(THREADS)],
                    user_id=f"user-{user}",
                    display_name=f"Person {user}",
                    origin={"device": device},
                )
                queued = arrive(tx, message, scope=scope)
                lane.finish(tx, claimed(tx, queued.session_id), "completed", NOW, answer="pears")
                session = resolved(tx, message, scope=scope)[0]
                world.by_device[device] = session.id
                if session.id not in made:
                    _furnish(tx, session)
                made[session.id] = lifecycle.find(tx, session.id, OperatorScope())
    for number, session in enumerate(list(made.values())):
        if number % 5 == 0:
            made[session.id] = lifecycle.end(tx, session, "reset", NOW)
            if session.person_id is not None and number % 10 == 0:
                key = archive_key("openai", session.id, session.person_id)
                tx.execute("UPDATE sessions SET key = :key WHERE id = :id", {"key": key, "id": session.id})
                made[session.id] = lifecycle.find(tx, session.id, OperatorScope())
        elif number % 5 == 1:
            made[session.id] = lifecycle.delete(tx, session, NOW)
    while unread := semantic.pending(tx):
        semantic.save(tx, unread, [VECTOR] * len(unread))
    world.sessions = list(made.values())
    world.by_turn = {row["id"]: row["session_id"] for row in tx.rows("SELECT id, session_id FROM turns")}
    world.by_message = {
        row["id"]: row["session_id"] for row in tx.rows("SELECT id, session_id FROM messages")
    }
    return world


def _furnish(tx: Transaction, session: Session) -> None:
    """Everything a session can have, so named that it tells whose it is."""
    contents.set_variable(tx, session.id, "whose", session.id, NOW)
    contents.add_link(tx, session.id, "notebook", session.id, NOW)
    contents.set_current_task(tx, session.id, session.id, NOW)
    contents.set_title(tx, session.id, session.id)
    lifecycle.resume(tx, lifecycle.pause(tx, session, NOW), NOW)


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


Way = Callable[[Transaction, World, Session, Scope], Iterable[str]]


def _find(tx: Transaction, _world: World, asked: Session, scope: Scope) -> Iterable[str]:
    try:
        return [lifecycle.find(tx, asked.id, scope).id]
    except SessionNotFound:
        return []


def _page(tx: Transaction, _world: World, asked: Session, scope: Scope) -> Iterable[str]:
    page = history.page(tx, asked.key, scope, size=2)
    assert bool(page.total) == bool(page.messages)
    return [message.session_id for message in page.messages]


def _searched(tx: Transaction, _world: World, asked: Session, scope: Scope) -> Iterable[str]:
    found = search.search(tx, scope, SearchQuery("apples", session_id=asked.id, size=1))
    assert bool(found.total) == bool(found.hits)
    return [hit.message.session_id for hit in found.hits]


def _searched_for_a_person(tx: Transaction, _world: World, asked: Session, scope: Scope) -> Iterable[str]:
    """An operator's filter opens nothing to others; the words are in no index yet, so both ways to them are read."""
    query = SearchQuery("apple*", person_id=asked.person_id, session_id=asked.id, size=1)
    return [hit.message.session_id for hit in search.search(tx, scope, query).hits]


def _candidates(tx: Transaction, world: World, asked: Session, scope: Scope) -> Iterable[str]:
    query = SearchQuery("pears", session_id=asked.id)
    return [world.by_message[one.id] for one in search.candidates(tx, scope, query, terms.read("pears"))[0]]


def _hits(tx: Transaction, world: World, asked: Session, scope: Scope) -> Iterable[str]:
    ids = [one for one, session_id in world.by_message.items() if session_id == asked.id]
    return [hit.message.session_id for hit in search.read_hits(tx, scope, ids, terms.read("pears"))]


def _platforms(tx: Transaction, world: World, asked: Session, scope: Scope) -> Iterable[str]:
    visible = {session.platform for session in world.sessions if may_see(scope, session)}
    shown = set(search.platforms(tx, scope))
    assert visible <= shown
    told_of = [session.id for session in world.sessions if session.platform in shown - visible]
    return told_of or ([asked.id] if may_see(scope, asked) else [])


def _nearest(tx: Transaction, world: World, asked: Session, scope: Scope) -> Iterable[str]:
    found = semantic.nearest(tx, scope, SearchQuery("fruit", session_id=asked.id), VECTOR)
    return [world.by_message[one.id] for one in found]


def _searched_both(tx: Transaction, _world: World, asked: Session, scope: Scope) -> Iterable[str]:
    page = semantic.search_both(tx, scope, SearchQuery("fruit", session_id=asked.id), VECTOR)
    return [hit.message.session_id for hit in page.hits]


def _statistics(tx: Transaction, _world: World, asked: Session, scope: Scope) -> Iterable[str]:
    read = statistics.read(tx, scope, Subject("session", asked.id), NOW)
    assert bool(read.sessions) == bool(read.messages) == bool(read.turns)
    person = statistics.read(tx, scope, Subject("person", asked.person_id or "nobody"), NOW)
    is_own = isinstance(scope, OperatorScope) or scope == PersonScope(asked.person_id or PersonId("?"))
    assert is_own or not (person.sessions or person.messages or person.turns)
    for subject in (Subject(), Subject("platform", asked.platform), Subject("persona", "")):
        everybody = statistics.read(tx, scope, subject, NOW)
        assert isinstance(scope, OperatorScope) or not (everybody.sessions or everybody.messages)
    return [asked.id] if read.messages else []


WAYS: Mapping[str, tuple[Way, ...]] = {
    "lifecycle.find": (_find,),
    "lifecycle.list_sessions": (
        lambda tx, _world, asked, scope: [
            one.id for one in lifecycle.list_sessions(tx, scope, key=asked.key, id_end=asked.id[-6:])
        ],
        lambda tx, _world, asked, scope: [
            one.id
            for one in lifecycle.list_sessions(
                tx, scope, key="" if is_archive(asked.key) else asked.key, with_archive=True
            )
            if one.id == asked.id or not is_archive(one.key)
        ],
    ),
    "lifecycle.events": (
        lambda tx, _world, asked, scope: [asked.id for _ in lifecycle.events(tx, asked.id, scope)],
    ),
    "contents.variables": (
        lambda tx, _world, asked, scope: list(contents.variables(tx, asked.id, scope).values()),
        lambda tx, _world, asked, scope: list(contents.variables(tx, asked.id, scope, "whose").values()),
    ),
    "contents.links": (lambda tx, _world, asked, scope: contents.links(tx, asked.id, scope, "notebook"),),
    "contents.tasks": (
        lambda tx, _world, asked, scope: [one.task for one in contents.tasks(tx, asked.id, scope)],
    ),
    "contents.titles": (
        lambda tx, _world, asked, scope: list(contents.titles(tx, [asked.id], scope).values()),
    ),
    "contents.exchanges": (
        lambda tx, world, asked, scope: [
            world.by_turn[one.turn_id] for one in contents.exchanges(tx, asked.id, scope)
        ],
    ),
    "contents.devices": (
        lambda tx, world, asked, scope: [
            world.by_device[one] for one in contents.devices(tx, asked.id, scope)
        ],
    ),
    "history.page": (_page,),
    "search.search": (_searched, _searched_for_a_person),
    "search.candidates": (_candidates,),
    "search.read_hits": (_hits,),
    "search.platforms": (_platforms,),
    "semantic.nearest": (_nearest,),
    "semantic.search_both": (_searched_both,),
    "statistics.read": (_statistics,),
    "transfer.exporting.pages_of_sessions": (
        lambda tx, _world, asked, scope: [
            row["id"] for row in exporting.pages_of_sessions(tx, scope, [asked.id], "")
        ],
    ),
}
"""Every read that takes a scope, each asked for one session; it gives whose rows it showed."""

DEAR = (
    "search.search",
    "search.candidates",
    "search.read_hits",
    "semantic",
    "statistics",
    "exchanges",
    "devices",
)
"""Reads that are tried less often than the rest."""

NOT_READS = {
    "search.reach": "gives the condition itself, as text",
    "transfer.exporting.in_batches": "pages_of_sessions, again and again",
    "transfer.exporting.export": "writes what in_batches gives",
    "transfer.readable.export_markdown": "the same",
    "transfer.readable.export_csv": "the same",
}


def test_every_read_that_takes_a_scope_is_tried():
    """The ways below are all there are: a new read with a scope fails here until it is among them."""
    taking = set()
    for info in pkgutil.walk_packages(sessions.__path__, "sessions."):
        module = importlib.import_module(info.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ != info.name or name.startswith("_"):
                continue
            kinds = [one.annotation for one in inspect.signature(function).parameters.values()]
            if any(kind in (Scope, Scope | None) for kind in kinds):
                taking.add(f"{info.name.removeprefix('sessions.')}.{name}")
    assert taking - {"scope.condition", "scope.within"} == set(WAYS) | set(NOT_READS)


@pytest.mark.timeout(180)
def test_random_reads_show_nothing_beyond_the_scope(tx):
    """A hundred thousand reads by wrong people, channels and sessions in every way, with right ones between: never a foreign row."""
    world = populate(tx)
    by_id = {session.id: session for session in world.sessions}
    assert {session.scope for session in world.sessions} == set(SCOPES)
    chance = random.Random(20_261_120)
    ways = [(name, way) for name, all_of_it in WAYS.items() for way in all_of_it]
    often = [pair for pair in ways if not any(word in pair[0] for word in DEAR)]
    wrong: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for number in itertools.count():
        if wrong.total() >= READS[tx.dialect]:
            break
        scope, asked = anybody(world.sessions, chance), chance.choice(world.sessions)
        name, way = chance.choice(ways if number % 2 else often)
        shown = set(way(tx, world, asked, scope))
        if name == "transfer.exporting.pages_of_sessions" and asked.end_reason == "deleted":
            assert not shown  # not even for the operator
            continue
        assert shown == ({asked.id} if may_see(scope, asked) else set()), (number, name, scope, asked)
        for session_id in shown:
            assert may_see(scope, by_id[session_id]), (number, name, scope, asked)
        (right if shown else wrong)[name] += 1
    assert set(wrong) == set(right) == set(WAYS), "each read was tried by the right and by the wrong ones"


def test_each_scope_shows_all_of_its_own(tx):
    """The other half: what a scope may see, it gets, whole and nothing else."""
    made = populate(tx).sessions
    scopes: set[Scope] = {OperatorScope()}
    for session in made:
        scopes |= {SessionOnly(session.id), ChannelScope(session.account, session.channel, session.thread)}
        if session.person_id is not None:
            scopes.add(PersonScope(session.person_id))
    for scope in scopes:
        shown = {session.id for session in lifecycle.list_sessions(tx, scope, limit=1000)}
        assert shown == {session.id for session in made if may_see(scope, session)}, scope


# no read without a scope

WITHOUT_SCOPE: Mapping[str, str] = {
    # for whoever runs the daemon, and by the daemon on its own
    "history.trace": "the story of a message, which `palaver why` tells the operator",
    "history.find_inbox": "rows of the inbox by what `palaver why` was given; no word of what was said",
    "summaries.summarised_sessions": "ids of sessions with summaries, for the operator",
    "invariants.of": "the checks of `palaver verify`, which give numbers and ids",
    "cleanup.clean_up": "touches sessions whosoever, and gives a number",
    "cleanup.due": "the same, only counting",
    "cleanup.purge": "removes a session that is due; gives nothing",
    "lifecycle.move_channel": "a platform's word that a channel has another id; gives a number",
    "search.index_pending": "keeps the index up to date; gives a number",
    "search.has_pending": "the same; gives yes or no",
    "semantic.pending": "texts for the encoder on this machine, which makes numbers of them",
    "semantic.save": "keeps those numbers; gives how many",
    "people.list_people": "whom the bot has met, with numbers, for the operator",
    "retention.outdated": "ids of sessions with messages past their time",
    "retention.count_before": "how many those are",
    "retention.forget_before": "removes those messages; gives a number",
    "erasure.samples": "pieces of an erased person's own words, for the daemon to prove that no file has them",
    "erasure.is_said": "whether such a piece is anybody's; gives yes or no",
    "emptying.empty_turns": "removes turns of a session; gives numbers",
    "transfer.storing.store_batch": "puts an import's rows in, for the operator; gives numbers",
    # by the key that the gateway makes of who wrote where
    "lifecycle.resolve": "makes the key from the very message and person it is for",
    "lifecycle.find_live": "by a key, which only its person's or channel's messages lead to",
    "fleet.look": "names of nodes and numbers, for the operator",
    "lane.counting_under": "by a key made of the message itself; a number",
    "lane.unfinished_sessions": "by such a key too; gives ids for a stop",
    "inbox.replace_text": "a message's own text, by (account, channel, message id) of its author's edit",
    # by a turn of the session itself
    "lane.claim": "a lane's own turn, by the session's id from the store itself",
    "lane.claim_heads": "lanes' own turns, as the queue gives them",
    "queue.take": "the turn of a claim, by the session's id from the store itself",
    "queue.take_heads": "part of `lane.claim_heads`",
    "queue.refill": "ids of lanes for the queue, no words",
    "lane.conversation_until": "part of `claim`",
    "lane.mark_noticed": "a turn's own place, by the turn's id",
    "window.summaries_of": "a session's own summaries, for its next turn",
    "summaries.plan": "a session's own messages, for the summary that stays in it",
    "summaries.plan_again": "the same, to make them anew",
    "summaries.stretch": "the same, piece by piece",
    "summaries.store": "puts them back into that very session",
    # replies on their way to where their message came from, and what could not be read of a platform
    "outbox.waiting": "what goes out in a channel, for that channel's sender",
    "outbox.mark_sent": "says what that reply should be by now",
    "outbox.channels_waiting": "places to send to, no word",
    "outbox.sent_since": "places, kinds and times, for the pace",
    "outbox.is_settled": "yes or no",
    "outbox.readdress": "moves replies along with their channel; gives a number",
    "outbox.forget_passing": "removes them; gives a number",
    "quarantine.find": "an update that no adapter could read, for the operator",
    "quarantine.latest": "the same, as a list",
    "quarantine.forget_old": "removes them; gives a number",
    # whoever wrote, by the platform's word
    "people.meet": "the person behind the platform's id that their message came with",
    "people.by_identity": "whose identity it is, for the operator; an id",
    "people.identities": "a person's own names, for themselves (`/whoami`) and the operator",
    # changes of a session that the caller has found through a scope
    "contents.merge_metadata": "gives what it changed",
}
"""Functions that touch these tables without a `scope` parameter, and why that shows nobody another's words."""

PROTECTED = (
    "sessions",
    "messages",
    "message_vectors",
    "session_variables",
    "session_links",
    "session_tasks",
    "session_events",
    "summaries",
    "steps",
    "tool_calls",
    "errors",
    "outbox",
    "quarantine",
    "persons",
    "identities",
)


def public_functions_that_read() -> dict[str, bool]:
    """Public functions of `sessions` (not of its database drivers) whose SQL reads a protected table: has it a scope?

    SQL of a private function or of a constant counts for each public function of the module that uses it. A `Session` or a
    `Claim` is as good as a scope: nobody has one who was not given it.
    """
    found: dict[str, bool] = {}
    for info in pkgutil.walk_packages(sessions.__path__, "sessions."):
        if info.ispkg or info.name.startswith("sessions.database."):
            continue
        module = importlib.import_module(info.name)
        place = info.name.removeprefix("sessions.")
        tree = ast.parse(inspect.getsource(module))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        constants = {
            ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target): node.value
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        }
        reads = {name for name, node in functions.items() if _reads_protected(node, constants)}
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


def _reads_protected(function: ast.FunctionDef, constants: Mapping[str, ast.expr]) -> bool:
    """Whether a string in it selects or returns columns from one of the tables. Asking whether a session is there gives none."""
    parts = list(ast.walk(function))
    named = {part.id for part in parts if isinstance(part, ast.Name) and part.id in constants}
    while named:
        more = [part for name in named for part in ast.walk(constants[name])]
        parts += more
        constants = {name: value for name, value in constants.items() if name not in named}
        named = {part.id for part in more if isinstance(part, ast.Name) and part.id in constants}
    pieces = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
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
