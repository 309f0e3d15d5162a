"""Whatever a document tells people to follow, type, set or look for is there.

Owns links, command lines, variables, make targets, log events and settings named in README and docs/, and the recipes that
can be tried.
"""

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bot import cli
from config import logging as logs
from config.sources import load
from config.tree import variable
from sessions.database.sqlite import SqliteDatabase

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
CODE = {
    path: path.read_text()
    for package in ("bot", "adapters", "sessions", "config")
    for path in (ROOT / package).rglob("*.py")
}
OURS_ALONE = {"PALAVER_CONFIG", "PALAVER_SECRETS_DIR"}
"""Variables that say where settings are, and are none themselves."""


def text(name):
    return (ROOT / name).read_text()


def anchors(path):
    """The anchors of a Markdown file's headings, as repository sites make them."""
    found = set()
    fenced = False
    for line in path.read_text().splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and (heading := re.match(r"#{1,6} (.*)", line)):
            found.add(re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-"))
    return found


def code_spans(name):
    """Everything that is set as code: the lines of fenced blocks, and spans in backticks."""
    whole = text(name)
    blocks = re.findall(r"```[a-z]*\n(.*?)```", whole, re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", whole, flags=re.DOTALL))
    return [line.strip() for block in blocks for line in block.splitlines()] + spans


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name):
    """A link has both its brackets; a relative one names a file that exists, and an anchor a heading of it."""
    path = ROOT / name
    assert text(name).count("](") == len(re.findall(r"\[[^\[\]]*\]\(", text(name))), (
        f"{name}: a bracket is missing"
    )
    for target in re.findall(r"\]\(([^)\s]+)\)", text(name)):
        if re.match(r"[a-z]+://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{name}: {target}"
        assert linked.is_relative_to(ROOT), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{name}: {target}"


def test_every_document_can_be_found():
    """From the README every page of docs/ is reached by following links."""
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in seen or path.suffix != ".md":
            continue
        seen.add(path)
        targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", path.read_text())
        linked = [(path.parent / target).resolve() for target in targets if not re.match(r"[a-z]+:", target)]
        waiting += [file for file in linked if file.is_file()]
    assert set(DOCUMENTS) <= seen


def program(path=("palaver",)):
    command = typer.main.get_command(cli.cli)
    for name in path[1:]:
        command = command.commands[name]
    return command


def palaver_lines(name):
    """The command lines of `palaver` in a document, as words after the program's name."""
    for line in code_spans(name):
        for part in re.split(r"\||&&|;", re.sub(r"(^|\s)#.*", "", line.removeprefix("$ "))):
            found = re.match(
                r"\s*(?:[A-Z_]+=\S*\s+|sudo (?:-u \w+ )?|exec |docker exec palaver |ExecStart=)*"
                r"(?:[\w./]*/)?palaver(?=\s+(?:-|[a-z-]+\b))(.*)",
                part,
            )
            if found and not re.search(r"\d+\.\d+\.\d+ —", part):
                yield shlex.split(found[1].replace("'", "").replace("…", ""))


@pytest.mark.parametrize("name", NAMES)
def test_every_command_line_exists(name):
    """Each `palaver …` that is shown names a command of the program and only options that it takes."""
    for arguments in palaver_lines(name):
        path, rest = ["palaver"], list(arguments)
        while rest and getattr(program(path), "commands", None) and rest[0] in program(path).commands:
            path.append(rest.pop(0))
        assert len(path) > 1 or all(word.startswith("-") for word in rest), f"{name}: {arguments}"
        known = {opt for parameter in program(path).params for opt in parameter.opts} | {"--help"}
        named = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert named <= known, f"{name}: {arguments}"


def test_command_lines_are_looked_at():
    """The reading of documents finds the command lines that are in them, with their options."""
    found = [" ".join(words) for name in NAMES for words in palaver_lines(name)]
    assert "why telegram.main 8841 1207" in found
    assert "sessions list --status active" in found
    assert "stats --platform telegram" in found


def settings_paths():
    """Every setting that can be given, by its variable, with account and persona names left open."""
    listed = re.findall(
        r"^\| `([^`]+)` \|.*?\| `(PALAVER_[^`]+)` \|", text("docs/reference/settings.md"), re.MULTILINE
    )
    return {name for _, name in listed}


@pytest.mark.parametrize("name", [*NAMES, "docs/howto/palaver.service"])
def test_every_variable_exists(name):
    """Each PALAVER_… that is mentioned is a setting, or says where settings are."""
    patterns = [
        re.compile(re.sub(r"<\w+>", r"(?:<\\w+>|[A-Z0-9_]+?)", known))
        for known in settings_paths() | OURS_ALONE
    ]
    for found in re.findall(r"PALAVER_[A-Z0-9_]*(?:<\w+>[A-Z0-9_]*)*", text(name)):
        if found == "PALAVER_":  # the prefix itself
            continue
        spellings = {found, found.removesuffix("_FILE")}
        assert any(pattern.fullmatch(spelt) for pattern in patterns for spelt in spellings), (
            f"{name}: {found}"
        )
    assert variable(("http", "port")) == "PALAVER_HTTP__PORT"


@pytest.mark.parametrize("name", [*NAMES, "CONTRIBUTING.md", "docs/howto/example_adapter.py"])
def test_every_make_target_exists(name):
    """Each `make …` that is shown is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.MULTILINE))
    spans = code_spans(name) if name.endswith(".md") else text(name).splitlines()
    named = {
        found[1] for span in spans if (found := re.match(r"(?:\$ |[A-Z_]+=\S+ )*make ([a-z][a-z-]*)", span))
    }
    assert named <= targets


@pytest.mark.parametrize("name", NAMES)
def test_every_event_exists(name):
    """Each log event that a document names is written somewhere in the code."""
    areas = "adapter|gateway|session|sessions|turn|tool|delivery|daemon|http|store|config|preview|lanes"
    for event in set(re.findall(rf"`((?:{areas})\.[a-z]+(?:_[a-z]+)*_[a-z]+|turn\.completed)`", text(name))):
        if event in settings_named():
            continue
        written = any(f'"{event}"' in source for source in CODE.values())
        assert written or event.startswith("turn."), f"{name}: {event}"


def settings_named():
    listed = re.findall(
        r"^## `\[([a-z_.<>]+)\]`|^\| `([a-z_]+)` \|", text("docs/reference/settings.md"), re.MULTILINE
    )
    table, names = "", set()
    for heading, setting in listed:
        if heading:
            table = heading
        elif setting:
            names.add(f"{table}.{setting}" if table else setting)
    return names


@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_settings_is_accepted(name, tmp_path):
    """Each block of TOML is a configuration that Palaver reads, once its accounts have tokens."""
    for block in re.findall(
        r"```toml\n(.*?)```", re.sub(r"^ +", "", text(name), flags=re.MULTILINE), re.DOTALL
    ):
        file = tmp_path / "config.toml"
        file.write_text(block)
        environ = {"OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none"}
        for number, (account, table) in enumerate(tomllib.loads(block).get("accounts", {}).items()):
            environ[f"PALAVER_ACCOUNTS__{account.upper()}__TOKEN"] = f"12345{number}:TEST"
            if "platform" not in table:  # a fragment that belongs below what was shown before
                environ[f"PALAVER_ACCOUNTS__{account.upper()}__PLATFORM"] = "telegram"
        loaded = load(file, environ=environ, cwd=tmp_path)
        assert loaded.settings


async def test_a_backup_made_and_put_back_as_told_is_whole(tmp_path, monkeypatch):
    """The commands of operate.md, beside a daemon and after it, bring back what was there when the backup was made."""
    commands = [
        words.split("#")[0].split()
        for words in re.findall(
            r"^palaver ((?:backup|restore) .*)$", text("docs/howto/operate.md"), re.MULTILINE
        )
    ]
    assert [words[0] for words in commands] == ["backup", "restore"]
    (tmp_path / "backup").mkdir()
    monkeypatch.setenv("PALAVER_DATABASE_URL", f"sqlite://{tmp_path}/palaver.db")

    def run(words):
        result = CliRunner().invoke(
            cli.cli, [word.replace("/backup/", f"{tmp_path}/backup/") for word in words]
        )
        assert result.exit_code == 0, result.output

    async def met(name):
        database = await SqliteDatabase.open(tmp_path / "palaver.db")
        try:
            await database.write(
                lambda tx: tx.execute(
                    "INSERT INTO persons (id, display_name, created_at, last_seen_at) VALUES (:name, :name, 1, 1)",
                    {"name": name},
                )
            )
            if name == "Ada":
                await asyncio.to_thread(run, commands[0])
        finally:
            await database.close()

    try:
        await met("Ada")
        await met("Bob")
        await asyncio.to_thread(run, commands[1])
    finally:
        logs.stop()
    restored = await SqliteDatabase.open(tmp_path / "palaver.db")
    try:
        rows = await restored.read(lambda tx: tx.rows("SELECT display_name FROM persons"))
    finally:
        await restored.close()
    assert rows == [{"display_name": "Ada"}]


@pytest.mark.process
def test_the_readme_shows_what_one_sees(tmp_path):
    """The first question of the README gets the answer that it shows, through the real program and a pipe."""
    (question,) = re.findall(r"^you › (what is .*)$", text("README.md"), re.MULTILINE)
    (answer,) = re.findall(r"^bot › (\d+)\. In Tokyo it is", text("README.md"), re.MULTILINE)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PALAVER_")}
    kept = {
        name: value
        for name, value in kept.items()
        if not name.endswith(("_API_KEY", "_BASE_URL", "_BOT_TOKEN"))
    }
    done = subprocess.run(
        [shutil.which("palaver") or str(Path(sys.executable).parent / "palaver"), "chat"],
        input=f"{question}\n/reset\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        cwd=tmp_path,
        env=kept | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{answer}. In Tokyo it is ")
    (reset,) = re.findall(r"^bot › (Done\. .*)$", text("README.md"), re.MULTILINE)
    assert reset in done.stdout


def test_figures_have_a_place():
    """The README has one place for figures, with the commands that print them."""
    body = text("README.md").split("## Measured")[1].split("\n## ")[0]
    assert body.count("<!-- figures -->") == 1
    assert {"make bench", "make kill-loop"} <= {line.split("  ")[0] for line in body.splitlines()}
