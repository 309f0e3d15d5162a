"""Claim: without a model, fifty messages are summarised in less than 100 ms, from the reading to the commit.

Messages of about 600 characters in five languages, with figures and names in them; a session of its own for every round. The
digest alone is timed beside the whole way.

    python -m benchmarks.summarising [--rounds N] [--messages N]
"""

import asyncio
import statistics
import sys
import time
from pathlib import Path

from benchmarks.measuring import Claim, options, percentile, quiet, table, working_folder
from bot.summarising import Summariser
from config.settings import Settings
from sessions import context, digest
from sessions.database.base import Transaction
from sessions.database.sqlite import SqliteDatabase
from sessions.models import Message

ROUNDS, MESSAGES = 100, 50

SUMMARISED = Claim("read, summarise and store 50 messages, p99", "below", 100, " ms")
CLAIMS = (SUMMARISED,)

SENTENCES = (
    "We decided to take train 4711 to Ghent on 14 March, and Morwenna brings the cake.",
    "Der Geburtstag meiner Tochter ist am 3. Dezember; der Code für das Gartentor ist 7741.",
    "El vuelo está reservado con el código PX4Q9Z y mi jefa se llama señora Etxeberria.",
    "Рейс забронирован, меня зовут Пелагея, и мы договорились встретиться в 18:30 у вокзала.",
    "我的老板姓慕容，报告的截止日期是12月3日，我们决定坐火车去平遥。",
    "Is it going to rain later? I do not know, let us see what comes of it tomorrow.",
    "Thanks, that was very kind of you, have a nice evening and greetings to everybody.",
)


def text(number: int) -> str:
    return " ".join(
        f"{SENTENCES[(number + line) % len(SENTENCES)]} ({number * 7 + line})" for line in range(7)
    )


def fill(tx: Transaction, name: str, messages: int) -> None:
    tx.execute(
        "INSERT INTO sessions (id, key, scope, platform, account, channel, status, created_at, last_activity_at,"
        " next_position) VALUES (:id, :id, 'person', 'memory', 'memory.main', :id, 'active', 1, 1, 1000)",
        {"id": name},
    )
    for number in range(messages):
        tx.execute(
            "INSERT INTO messages (session_id, position, part, role, content, author, created_at)"
            " VALUES (:id, :position, :part, :role, :content, 'Ada', 1)",
            {
                "id": name,
                "position": number // 2 + 1,
                "part": number % 2,
                "role": ("user", "assistant")[number % 2],
                "content": text(number),
            },
        )


async def main() -> bool:
    chosen = options(__doc__, rounds=ROUNDS, messages=MESSAGES)
    quiet()
    with working_folder() as folder:
        return await measure(folder, chosen.rounds, chosen.messages)


async def measure(folder: Path, rounds: int, count: int) -> bool:
    database = await SqliteDatabase.open(folder / "palaver.db")
    summariser = Summariser(database, Settings(), lambda _persona: None)
    # The oldest 70 % are summarised, so that fifty of them take part of seventy-two.
    said = int(count / context.DUE_SHARE) + 1
    whole, alone = [], []
    for number in range(rounds):
        name = f"bench-{number:04d}"
        await database.write(lambda tx, name=name: fill(tx, name, said))  # type: ignore[misc]  # bound early
        started = time.perf_counter()
        made = await summariser.summarise(name)  # type: ignore[arg-type]  # a plain string
        whole.append(1000 * (time.perf_counter() - started))
        assert made == 1
        messages = [
            Message(name, one // 2 + 1, one % 2, "user", text(one), "Ada", 1)  # type: ignore[arg-type]  # same
            for one in range(count)
        ]
        started = time.perf_counter()
        digest.make_digest(context.spoken(messages), context.SUMMARY_TOKENS)
        alone.append(1000 * (time.perf_counter() - started))
    covered = await database.read(
        lambda tx: tx.rows("SELECT to_position * 2 AS messages, tokens FROM summaries")
    )
    await database.close()
    assert {row["messages"] for row in covered} == {count}
    print(f"Summarising {count} messages of {len(text(0))} characters without a model, {rounds} rounds\n")
    print(
        table(
            ["", "p50 ms", "p99 ms"],
            [
                [name, f"{percentile(values, 0.5):.1f}", f"{percentile(values, 0.99):.1f}"]
                for name, values in (("read, digest, commit", whole), ("the digest alone", alone))
            ],
        )
    )
    print(f"\nmedian length of a summary: {statistics.median(row['tokens'] for row in covered):.0f} tokens\n")
    return SUMMARISED.judge(percentile(whole, 0.99), f"p50 {percentile(whole, 0.5):.1f} ms")


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
