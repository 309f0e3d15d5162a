"""Claim: a search over a million messages takes at most 50 ms at p99, whoever asks and however common the words.

2,000 people with ten sessions of fifty messages each; words as often as in real language (Zipf). Half the searches are a
person's in their own history, half an operator's over everything, with common, middling and rare words, phrases, beginnings,
exclusions and filters. Messages are put in by plain inserts, through the tables and triggers of the store.

    python -m benchmarks.search [--people N] [--searches N]
"""

import asyncio
import itertools
import random
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from benchmarks.measuring import Claim, options, percentile, quiet, table, working_folder
from config.names import PersonId
from sessions import search
from sessions.database.base import Transaction
from sessions.database.sqlite import SqliteDatabase
from sessions.scope import OperatorScope, PersonScope
from sessions.search import SearchQuery

PEOPLE, SESSIONS, MESSAGES = 2000, 10, 50
VOCABULARY, SEARCHES = 30_000, 300
NOW = 1_800_000_000_000

PERSON = Claim("a person's search in their own history, p99", "below", 50, " ms")
OPERATOR = Claim("an operator's search over everything, p99", "below", 50, " ms")
CLAIMS = (PERSON, OPERATOR)


def vocabulary(chance: random.Random) -> list[str]:
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    found = sorted(
        {
            "".join(chance.choices(letters, range(26, 0, -1), k=chance.randint(2, 10)))
            for _ in range(VOCABULARY * 2)
        }
    )
    return sorted(found, key=lambda word: (len(word) + chance.random() * 4, word))[:VOCABULARY]


def fill(tx: Transaction, first: int, last: int, sentence: Callable[[], str]) -> None:
    """The sessions and messages of people `first` to `last`."""
    sessions: list[object] = []
    messages: list[object] = []
    for person, number in itertools.product(range(first, last), range(SESSIONS)):
        at, platform = NOW - number * 86_400_000, ("telegram", "discord")[person % 2]
        sessions += (f"s{person}x{number}", platform, f"{platform}.main", f"p{person}", MESSAGES, at)
        for message in range(MESSAGES):
            role = ("user", "assistant")[message % 2]
            messages += (f"s{person}x{number}", message // 2, message % 2, role, sentence(), at + message)
    tx.insert_many(
        "sessions (id, key, scope, platform, account, channel, person_id, status, message_count, created_at,"
        " last_activity_at)",
        "(:id, :id, 'person', :platform, :account, :person, :person, 'ended', :count, :at, :at)",
        sessions,
    )
    tx.insert_many(
        "messages (session_id, position, part, role, content, created_at)",
        "(:session, :position, :part, :role, :content, :at)",
        messages,
    )


def kinds(chance: random.Random, words: list[str]) -> dict[str, Callable[[], SearchQuery]]:
    """Searches of each kind; words are sorted by how common they are."""

    def common() -> str:
        return words[chance.randrange(30)]

    def middling() -> str:
        return words[chance.randrange(100, 3000)]

    def rare() -> str:
        return words[chance.randrange(10_000, VOCABULARY)]

    return {
        "a common word": lambda: SearchQuery(common()),
        "a middling word": lambda: SearchQuery(middling()),
        "a rare word": lambda: SearchQuery(rare()),
        "a common and a rare word": lambda: SearchQuery(f"{common()} {rare()}"),
        "two middling words": lambda: SearchQuery(f"{middling()} {middling()}"),
        "a phrase of common words": lambda: SearchQuery(f'"{common()} {common()}"'),
        "a beginning": lambda: SearchQuery(f"{middling()[:3]}*"),
        "without a common word": lambda: SearchQuery(f"{middling()} -{common()}"),
        "with filters": lambda: SearchQuery(
            middling(), since=NOW - 3 * 86_400_000, platform="telegram", role="user", number=2
        ),
        "a word nobody wrote": lambda: SearchQuery(f"{rare()}qqzz"),
    }


async def main() -> bool:
    chosen = options(__doc__, people=PEOPLE, searches=SEARCHES)
    quiet()
    with working_folder() as folder:
        return await measure(folder, chosen.people, chosen.searches)


async def measure(folder: Path, people: int, searches: int) -> bool:
    chance = random.Random(7)
    words = vocabulary(chance)
    weights = list(accumulate(1 / (rank + 3) for rank in range(VOCABULARY)))

    def sentence() -> str:
        return " ".join(chance.choices(words, cum_weights=weights, k=chance.choice((4, 8, 15, 30))))

    database = await SqliteDatabase.open(folder / "palaver.db")
    started = time.perf_counter()
    for first in range(0, people, 20):
        await database.write(lambda tx, at=first: fill(tx, at, at + 20, sentence))  # type: ignore[misc]  # bound early
    filled = time.perf_counter()
    while await database.write(lambda tx: search.index_pending(tx, 5000)):
        pass
    indexed = time.perf_counter()
    count = people * SESSIONS * MESSAGES
    size = (folder / "palaver.db").stat().st_size
    print(
        f"{count:,} messages, {size / 2**20:.0f} MB; filled in {filled - started:.0f} s, indexed in {indexed - filled:.0f} s"
        f" ({count / (indexed - filled):,.0f} messages/s)\n"
    )
    rows = []
    taken: dict[str, list[float]] = {}
    for who in ("a person", "the operator"):
        for name, make in kinds(chance, words).items():
            times, hits = [], 0
            for _ in range(searches // 10):
                scope = (
                    PersonScope(PersonId(f"p{chance.randrange(people)}"))
                    if who == "a person"
                    else OperatorScope()
                )
                query = make()
                begun = time.perf_counter()
                page = await database.read(lambda tx, s=scope, q=query: search.search(tx, s, q))  # type: ignore[misc]  # bound early
                times.append(1000 * (time.perf_counter() - begun))
                hits += page.total
            taken.setdefault(who, []).extend(times)
            rows.append(
                [
                    who,
                    name,
                    f"{hits / len(times):.0f}",
                    f"{percentile(times, 0.5):.1f}",
                    f"{percentile(times, 0.99):.1f}",
                ]
            )
    await database.close()
    print(table(["who", "what", "hits", "p50 ms", "p99 ms"], rows))
    print()
    verdicts = [
        claim.judge(percentile(taken[who], 0.99), f"p50 {percentile(taken[who], 0.5):.1f} ms")
        for who, claim in (("a person", PERSON), ("the operator", OPERATOR))
    ]
    return all(verdicts)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
