"""The sentences people see: both languages whole, every one used, an operator's own in their place."""

import ast
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import get_args

import pytest

from adapters.messages import Unsupported
from bot import catalogue, commands
from bot.agents.base import AgentErrorKind
from bot.catalogue import CatalogueError

ROOT = Path(catalogue.__file__).parent
TEXTS = {
    language: tomllib.loads(
        resources.files("bot.texts").joinpath(f"{language}.toml").read_text(encoding="utf-8")
    )
    for language in catalogue.LANGUAGES
}
EXPANDED = {
    "command_": set(commands.TABLE),
    "unsupported_": set(get_args(Unsupported)),
    # The kind "fault" is told with the general sentence.
    "failed_": (set(get_args(AgentErrorKind)) | {"poison"}) - {"fault"},
    # One thing, or any other number of them.
    **{
        f"{counted}_": {"one", "many"}
        for counted in (
            "sessions_label",
            "sessions_switched",
            "forked",
            "forget_ask_session",
            "search_found",
            "search_begun",
            "stop_waiting",
            "stop_waiting_here",
            "stop_not_begun",
            "stop_not_begun_here",
            "status_busy",
            "status_busy_here",
            "counted_sessions",
            "counted_messages",
            "counted_tool_calls",
            "counted_errors",
        )
    },
}
"""Names that the code puts together: what follows the beginning."""

SENTENCES = [(language, name, text) for language in TEXTS for name, text in TEXTS[language].items()]


def names_in_code() -> set[str]:
    """Every name of a sentence that stands in the code as a whole word."""
    words: set[str] = set()
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
    return words


def test_all_languages_have_the_same_sentences():
    """A sentence in one language stands in every other, with the same words to fill in."""
    fields = [{name: catalogue.fields(text) for name, text in texts.items()} for texts in TEXTS.values()]
    assert all(other == fields[0] for other in fields)


def test_every_sentence_is_used():
    """No sentence stands in the catalogue that nobody says."""
    made = {beginning + end for beginning, ends in EXPANDED.items() for end in ends}
    assert set(TEXTS["en"]) - names_in_code() - made == set()


def test_every_name_that_is_put_together_has_its_sentence():
    """What the code puts together (a kind of failure, a command, an attachment) exists for each kind there is."""
    made = {beginning + end for beginning, ends in EXPANDED.items() for end in ends}
    assert made - set(TEXTS["en"]) == set()


def test_every_sentence_said_exists():
    """Every name that the code says stands in the catalogue."""
    said = set()
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in ("say", "_say") and isinstance(node.args[0], ast.Constant):
                said.add(node.args[0].value)
    assert len(said) > 25
    assert said - set(TEXTS["en"]) == set()


@pytest.mark.parametrize(("language", "name", "text"), SENTENCES)
def test_tone(language, name, text):
    """Plain and calm: no exclamation marks, no interjections, no excuses, no internals."""
    assert "!" not in text
    assert not re.search(
        r"\b(oops|uh-oh|hey|sorry|error|exception|traceback|null|hoppla|ups|leider|sorry|fehlercode)\b",
        text,
        re.IGNORECASE,
    )
    assert text == text.strip()


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
def test_a_failure_says_what_to_do_and_where_to_look(language):
    """Every failure has a reference and more than one sentence: what happened, what to do next."""
    for name, text in TEXTS[language].items():
        if name.startswith("failed"):
            assert text.endswith("(ref {ref})")
            assert len(re.findall(r"[.:]", text)) >= 2, name


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("de", "de"),
        ("de-AT", "de"),
        ("DE_ch", "de"),
        ("en-GB", "en"),
        ("pt-br", "en"),
        ("", "en"),
        (None, "en"),
    ],
)
def test_a_platforms_tag_chooses_the_language(tag, language):
    """A tag's language is spoken where there is one, else the default."""
    assert catalogue.load("en").language(tag) == language


def test_the_default_language_is_the_operators():
    """Whoever's platform tells no language hears the configured one."""
    assert catalogue.load("de").say("stop_running", None) == TEXTS["de"]["stop_running"]


def test_values_are_filled_in_and_never_read_as_sentences():
    """A name with braces in it stays what it is."""
    assert "{help}" in catalogue.load().say("start", "en", name="{help}")


def test_an_operators_sentence_replaces_the_shipped_one(tmp_path):
    """A line in the operator's file takes the place of that sentence, in that language alone."""
    (tmp_path / "en.toml").write_text('stop_running = "Halted."\n', encoding="utf-8")
    texts = catalogue.load("en", tmp_path)
    assert texts.say("stop_running", "en") == "Halted."
    assert texts.say("stop_running", "de") == TEXTS["de"]["stop_running"]
    assert texts.say("help", "en") == TEXTS["en"]["help"]


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ('stop_runing = "x"', "stop_runing"),
        ("stop_running = 3", "stop_running"),
        ('queued_many = "{number} waiting"', "number"),
        ('queued_many = "{count waiting"', "queued_many"),
        ('queued_many = "{}"', "queued_many"),
        ('queued_many = "{0}"', "queued_many"),
        ('queued_many = "{count.real}"', "queued_many"),
        ('queued_many = "{count:>{wide}}"', "queued_many"),
        ('unsupported_too_large = "{limit:d}"', "unsupported_too_large"),
        ("stop_running = ", "en.toml"),
    ],
)
def test_an_operators_mistake_is_named(tmp_path, written, named):
    """A wrong name, a wrong kind, an unknown or broken field is refused at the start with file and name."""
    (tmp_path / "en.toml").write_text(written, encoding="utf-8")
    with pytest.raises(CatalogueError) as refused:
        catalogue.load("en", tmp_path)
    assert "en.toml" in str(refused.value)
    assert named in str(refused.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    """A file in another encoding is named as such."""
    (tmp_path / "de.toml").write_bytes(b'help = "\xff"')
    with pytest.raises(CatalogueError, match=r"de\.toml"):
        catalogue.load("en", tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    """A misspelt folder does not pass silently as "nothing replaced"."""
    with pytest.raises(CatalogueError, match="nowhere"):
        catalogue.load("en", tmp_path / "nowhere")
