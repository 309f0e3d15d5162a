"""Which person an operator means by a word on the command line.

Owns the ways to name one, and what is said where nobody is meant or several are.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from bot import shell
from bot.shell import NOT_FOUND, USAGE
from config.names import PersonId
from sessions import people
from sessions.database.base import Database

PersonOption = Annotated[
    str | None,
    typer.Option(
        metavar="PERSON",
        help="A person's id, a name or platform id that only they have, or platform:user as in telegram:8841.",
    ),
]


async def person_named(database: Database, word: str, command: str) -> PersonId:
    """The one person with this id or identity, or of whom alone this is a name or platform id."""
    platform, _, user = word.partition(":")
    if (of_identity := await database.read(lambda tx: people.by_identity(tx, platform, user))) is not None:
        return of_identity
    found = await database.read(lambda tx: people.list_people(tx, words=word, limit=20))
    exact = [one for one in found if one.id == word.upper()]
    named = [one for one in found if word.lower() in (one.display_name.lower(), *_names(one.identities))]
    chosen = exact or named or found
    if len(chosen) == 1:
        return chosen[0].id
    if chosen:
        some = ", ".join(f"{one.id} ({one.display_name})" for one in chosen[:5])
        shell.fail(USAGE, f"{command}: {len(chosen)} people fit {word}: {some}.", "Give the id.")
    return shell.fail(
        NOT_FOUND, f"{command}: nobody is known as {word}.", "`palaver people list` lists them."
    )


def _names(identities: Sequence[tuple[str, str, str | None]]) -> Iterator[str]:
    for _, user_id, username in identities:
        yield user_id.lower()
        yield (username or "").lower()
