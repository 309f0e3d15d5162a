"""What check-config shows, and that the reference and the examples keep up with the settings."""

import json
import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from config import report
from config.implied import EXPORTED
from config.redaction import redact_url, secrets_in_url
from config.settings import spell_duration
from config.sources import load
from config.tree import ANY_NAME, flatten, leaves, node_at

ROOT = Path(__file__).parents[2]
TOKEN = "123456:ABC-telegram-token"


def uncommented(file: Path) -> str:
    """An example with every setting switched on: the `#` directly before a setting is taken away."""
    return re.sub(r"(?m)^#(?=[^ \n])", "", file.read_text(encoding="utf-8"))


def test_every_value_has_its_origin(read):
    """Each setting is listed once, with the value in force and where it comes from."""
    loaded = read("[http]\nport = 1\n", dotenv="PALAVER_LOG__LEVEL=debug\n", TELEGRAM_BOT_TOKEN=TOKEN)
    rows = {path: (value, origin) for path, value, origin in report.effective(loaded)}
    assert rows["http.port"] == ("1", "config.toml line 2")
    assert rows["log.level"] == ("debug", ".env line 1")
    assert rows["accounts.main.token"] == ("set", "TELEGRAM_BOT_TOKEN")
    assert rows["accounts.main.api_url"] == ("not set", "default")
    assert rows["sessions.expire_after"] == ("1d", "default")
    assert {re.sub("^accounts.main", "accounts.<name>", path) for path in rows} >= {
        ".".join(leaf.path) for leaf in leaves() if ANY_NAME not in leaf.path
    }


def test_the_text_is_for_people(read):
    """Sections with aligned columns; of an account only what is set; notices at the end; never is said."""
    loaded = read(
        '[accounts.a]\nplatform = "memory"\n[accounts.t]\nplatform = "telegram"\ntoken = "1:a"\n[sessions]\n'
        'delete_after = "never"\n',
        TELEGRAM_BOT_TOKEN=TOKEN,
    )
    text = report.text(loaded)
    assert re.search(r"(?m)^\[accounts\.a\]\nplatform +memory +config.toml line 2\n\n", text)
    assert re.search(r"(?m)^delete_after +never +config.toml line 7$", text)
    assert "note: TELEGRAM_BOT_TOKEN is set but not used" in text
    assert max(map(len, text.splitlines())) < 120


def test_json_is_complete(read):
    """The JSON holds the same settings with values of their kind; a secret is only known to be set."""
    loaded = read(TELEGRAM_BOT_TOKEN=TOKEN, PALAVER_ACCESS__ALLOW="1,2")
    document = json.loads(report.as_json(loaded))
    values = {entry["path"]: entry["value"] for entry in document["settings"]}
    assert list(values) == [path for path, _, _ in report.effective(loaded)]
    assert values["http.port"] == 8080
    assert values["access.allow"] == ["1", "2"]
    assert values["accounts.main.token"] is True
    assert values["accounts.main.webhook_secret"] is None


secrets = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=8, max_size=40
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(secret=secrets, tail=st.text("abcXYZ019_-", min_size=8, max_size=40))
def test_no_report_shows_a_secret(read, secret, tail):
    """Neither a token, a key, a webhook secret nor a password in an address is in any form of the report."""
    ordinary = "".join(forms(with_secrets(read, "\N{SNOWMAN}" * 8, "t0ken-" * 3)))
    assume(secret not in ordinary and tail not in ordinary)
    loaded = with_secrets(read, secret, tail)
    for shown in forms(loaded):
        assert secret not in shown
        assert json.dumps(secret)[1:-1] not in shown
        assert f"1:{tail}" not in shown
    rows = {path: value for path, value, _ in report.effective(loaded)}
    assert tail not in rows["database_url"] + rows["accounts.a.api_url"]


def with_secrets(read, secret, tail):
    """Settings with a secret wherever there may be one."""
    return read(
        PALAVER_ACCOUNTS__A__PLATFORM="telegram",
        PALAVER_ACCOUNTS__A__TOKEN=f"1:{tail}",
        PALAVER_ACCOUNTS__A__WEBHOOK_SECRET=secret,
        PALAVER_ACCOUNTS__A__API_URL=f"http://me:{tail}@127.0.0.1/x",
        PALAVER_AGENT__API_KEY=secret,
        PALAVER_AGENT__MODEL="openai:x",
        PALAVER_AGENT__INSTRUCTIONS=f"The key is {secret}",
        PALAVER_DATABASE_URL=f"postgresql://me:{secret}@host/db?password={tail}",
    )


def forms(loaded):
    """Every way in which settings are shown."""
    return report.text(loaded), report.as_json(loaded), str(report.effective(loaded))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pw@h/db", "postgresql://me:***@h/db"),
        ("postgresql://me:p@w/x?y@h/db", "postgresql://me:***@h/db"),
        ("postgresql://h/db?user=me&password=pw&x=1", "postgresql://h/db?user=me&password=***&x=1"),
        ("postgresql://me_alone@h/db", "postgresql://me_alone@h/db"),
        ("postgresql://p@w@h/db", "postgresql://***@h/db"),
        ("https://token@h/", "https://***@h/"),
        ("https://h/v1?api_key=sk-1", "https://h/v1?api_key=***"),
        ("sqlite:///var/a.db", "sqlite:///var/a.db"),
        ("plain words", "plain words"),
    ],
)
def test_addresses_lose_their_passwords(url, shown):
    """Of an address everything but the secret stays readable, and what is hidden there is looked for in text."""
    assert redact_url(url) == shown
    assert all(secret not in shown for secret in secrets_in_url(url))
    assert bool(list(secrets_in_url(url))) == ("***" in shown)


@pytest.mark.parametrize("text", ["1d", "1h30m", "7d", "90s", "0.5s", "0s", "1d2h3m4s"])
def test_a_duration_is_shown_as_it_may_be_written(text, read):
    """What is shown can be put back into the configuration."""
    if text == "90s":
        assert spell_duration(timedelta(seconds=90)) == "1m30s"
    else:
        loaded = read(PALAVER_SESSIONS__DELETE_AFTER=text)
        assert spell_duration(loaded.settings.sessions.delete_after) == text


def test_a_foreign_owner_of_our_names_is_told(monkeypatch):
    """A distribution that installs a package called config is named; our own is not."""
    assert report.name_clashes() == []
    owners = {"bot": ["palaver"], "config": ["palaver", "config"], "adapters": ["adapters"], "other": ["x"]}
    monkeypatch.setattr(report, "packages_distributions", lambda: owners)
    assert [clash.split(",")[0] for clash in report.name_clashes()] == [
        "the package 'adapters' is also installed by adapters",
        "the package 'config' is also installed by config",
    ]


def test_the_reference_is_up_to_date():
    """docs/reference/settings.md is what `python -m config.report --markdown` prints."""
    written = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert written == report.reference_markdown()


def test_the_reference_has_every_setting_and_its_meaning():
    """Each setting has a row with its variable and a sentence."""
    page = report.reference_markdown()
    for leaf in leaves():
        assert f"`{report.variable(leaf.path)}` | " in page
        assert leaf.field.description, leaf.path
    assert all(name in page for name in EXPORTED)


def test_the_example_file_is_valid_and_complete(place):
    """config.example.toml with everything switched on loads without a mistake, and mentions every setting."""
    text = uncommented(ROOT / "config.example.toml")
    (place / "config.toml").write_text(text, encoding="utf-8")
    load(place / "config.toml", environ={}, cwd=place)
    mentioned = set()
    for path, _ in flatten(tomllib.loads(text)):
        generic = [ANY_NAME if node_at(path[:at]).kind == "table" else part for at, part in enumerate(path)]
        mentioned.add(tuple(generic))
    assert {leaf.path for leaf in leaves()} - mentioned == set()


def test_the_defaults_in_the_example_file_are_the_defaults():
    """A number or switch that the example shows is what is in force without it, except where none is."""
    data = tomllib.loads(uncommented(ROOT / "config.example.toml"))
    for path, value in flatten(data):
        leaf = node_at(path)
        default = leaf.field.default
        if isinstance(default, (bool, int, float, tuple)) and path[0] not in ("accounts", "personas"):
            assert (tuple(value) if isinstance(value, list) else value) == default, path


def test_the_example_as_it_comes_changes_nothing(place):
    """Both examples, copied without a change, set nothing."""
    (place / "config.toml").write_bytes((ROOT / "config.example.toml").read_bytes())
    (place / ".env").write_bytes((ROOT / ".env.example").read_bytes())
    loaded = load(place / "config.toml", environ={}, cwd=place)
    assert set(loaded.origins) == {"agent.kind"}
    assert tomllib.loads((ROOT / "config.example.toml").read_text(encoding="utf-8")) == {}


def test_the_example_environment_is_valid(place):
    """.env.example with everything switched on loads, and has every exported name."""
    folder = place / "secrets"
    folder.mkdir()
    (folder / "model-key").write_text("key")
    (place / "config.toml").write_text("")
    text = uncommented(ROOT / ".env.example").replace("/run/secrets", str(folder))
    (place / ".env").write_text(text, encoding="utf-8")
    loaded = load(environ={"XDG_CONFIG_HOME": str(place)}, cwd=place)
    assert set(loaded.settings.accounts) == {"support", "discord"}
    assert loaded.settings.access.allow == ("8841", "@ada")
    assert all(re.search(rf"(?m)^{name}=", text) for name in EXPORTED)
