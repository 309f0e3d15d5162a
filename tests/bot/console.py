"""An operator at a shell: `palaver …` run in this process on a database of the test's."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from typer.testing import CliRunner

from bot.cli import cli
from sessions.database.base import Transaction
from tests.sessions.stores import open_place

T = TypeVar("T")


class Console:
    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite:")
        self.config = folder / "config.toml"
        self.config.write_text(f'database_url = "{url}"\n', encoding="utf-8")

    def run(self, *words: str) -> tuple[int, str, str]:
        """The exit code, and what stands on stdout and stderr."""
        result = CliRunner().invoke(cli, [*words, "--config", str(self.config)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    def change(self, work: Callable[[Transaction], T]) -> T:
        """Do something to the database as the daemon would."""

        async def run() -> T:
            database = await open_place(self.url)
            try:
                return await database.write(work)
            finally:
                await database.close()

        return asyncio.run(run())

    def beside_a_daemon(self, *words: str) -> tuple[int, str, str]:
        """The same while somebody else has the database open, which on SQLite is to own it."""

        async def run() -> tuple[int, str, str]:
            database = await open_place(self.url)
            try:
                return await asyncio.to_thread(self.run, *words)
            finally:
                await database.close()

        return asyncio.run(run())
