"""Where settings come from, and which source wins."""

import os
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import sources
from config.errors import ConfigErrors
from config.sources import load

TOKEN = "123456:ABC-telegram-token"


def test_nothing_is_required(read):
    """With no source at all there is a complete configuration, answered offline."""
    loaded = read()
    assert loaded.settings.accounts == {}
    assert loaded.settings.agent.kind == "offline"
    assert loaded.settings.http.port == 8080
    assert loaded.origin("http.port") == "default"
    assert loaded.config_file is None


SOURCES = ("flag", "environment", "secret file", "dotenv", "toml")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(given_by=st.sets(st.sampled_from(SOURCES)))
def test_the_strongest_source_wins(place, read, given_by):
    """Whichever sources name a setting, the strongest counts, and the origin names it."""
    ports = {source: 9000 + index for index, source in enumerate(SOURCES)}
    folder = place / "secrets"
    folder.mkdir(exist_ok=True)
    secret = folder / "palaver_http__port"
    secret.unlink(missing_ok=True)
    if "secret file" in given_by:
        secret.write_text(f"{ports['secret file']}\n")
    environ = {"PALAVER_SECRETS_DIR": str(folder)}
    if "environment" in given_by:
        environ["PALAVER_HTTP__PORT"] = str(ports["environment"])
    loaded = read(
        toml=f"[http]\nport = {ports['toml']}\n" if "toml" in given_by else "",
        dotenv=f"\nPALAVER_HTTP__PORT={ports['dotenv']}\n" if "dotenv" in given_by else "",
        flags={"http.port": ports["flag"]} if "flag" in given_by else {"http.port": None},
        **environ,
    )
    strongest = next((source for source in SOURCES if source in given_by), None)
    assert loaded.settings.http.port == (ports[strongest] if strongest else 8080)
    assert (
        loaded.origin("http.port")
        == {
            "flag": "flag",
            "environment": "PALAVER_HTTP__PORT",
            "secret file": f"secret file {secret}",
            "dotenv": ".env line 2",
            "toml": "config.toml line 2",
            None: "default",
        }[strongest]
    )


def test_sources_are_merged_key_by_key(read):
    """A stronger source replaces the keys it names and leaves their neighbours alone."""
    loaded = read('[http]\nport = 1\nhost = "a"\n', PALAVER_HTTP__PORT="2")
    assert (loaded.settings.http.port, loaded.settings.http.host) == (2, "a")


def test_an_account_needs_no_file(read):
    """Two variables make an account; its name is in small letters."""
    loaded = read(PALAVER_ACCOUNTS__MAIN__PLATFORM="telegram", PALAVER_ACCOUNTS__MAIN__TOKEN=TOKEN)
    assert loaded.settings.account_id("main") == "telegram.main"
    assert loaded.settings.accounts["main"].token.get_secret_value() == TOKEN
    assert loaded.origin("accounts.main.token") == "PALAVER_ACCOUNTS__MAIN__TOKEN"


def test_a_variable_means_the_account_in_the_file(read):
    """A variable reaches an account that the file writes with capitals and a hyphen."""
    loaded = read('[accounts.My-Bot]\nplatform = "telegram"\n', PALAVER_ACCOUNTS__MY_BOT__TOKEN=TOKEN)
    assert list(loaded.settings.accounts) == ["My-Bot"]


@pytest.mark.parametrize("text", ["8841, @ada", '["8841", "@ada"]', "8841,@ada,", '[8841, "@ada"]'])
def test_lists_are_json_or_words_with_commas(read, text):
    """A list in a variable is written as JSON or as `one, two`."""
    assert read(PALAVER_ACCESS__ALLOW=text).settings.access.allow == ("8841", "@ada")


def test_a_section_may_be_json_and_a_longer_name_wins(read):
    """A whole section as JSON is read key by key; a variable for one of its keys is stronger."""
    loaded = read(PALAVER_HTTP='{"port": 1, "host": "a"}', PALAVER_HTTP__PORT="2")
    assert (loaded.settings.http.port, loaded.settings.http.host) == (2, "a")
    assert loaded.origin("http.host") == "PALAVER_HTTP"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("30m", timedelta(minutes=30)),
        ("1h 30m", timedelta(hours=1, minutes=30)),
        ("1.5h", timedelta(minutes=90)),
        ("90", timedelta(seconds=90)),
        ("PT2H", timedelta(hours=2)),
    ],
)
def test_durations(read, text, meant):
    """A duration may be spelt, a number of seconds or ISO 8601, in a variable and in the file."""
    assert read(PALAVER_SESSIONS__EXPIRE_AFTER=text).settings.sessions.expire_after == meant
    assert read(f'[sessions]\nexpire_after = "{text}"\n').settings.sessions.expire_after == meant


def test_never_has_a_word(read):
    """Neither TOML nor the environment has a null: `never` keeps ended sessions."""
    assert read('[sessions]\ndelete_after = "never"\n').settings.sessions.delete_after is None
    assert read(PALAVER_SESSIONS__DELETE_AFTER="never").settings.sessions.delete_after is None


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_is_unset(read, empty):
    """`NAME=` in a compose file does not hide the file's value or make an account."""
    loaded = read(
        "[http]\nport = 1\n", PALAVER_HTTP__PORT=empty, TELEGRAM_BOT_TOKEN=empty, PALAVER_CONFIG=empty
    )
    assert loaded.settings.http.port == 1
    assert loaded.settings.accounts == {}


def test_a_dotenv_file_expands_names_and_knows_lines(read):
    """`.env` takes quotes, comments, export and `${NAME}`; blank lines count for the line number."""
    loaded = read(
        dotenv='# c\n\nexport NAME=host\n\nPALAVER_HTTP__HOST="${NAME}.${REST}"  # c\n', REST="example"
    )
    assert loaded.settings.http.host == "host.example"
    assert loaded.origin("http.host") == ".env line 5"


def test_a_broken_dotenv_line_is_told_without_its_text(mistakes):
    """A line that is no assignment is named by number; what it holds may be a secret."""
    (line,) = mistakes(dotenv="A=1\n'geheim geheim\n")
    assert ".env line 2" in line
    assert "geheim" not in line


class TestSecretFiles:
    """A secret may stand in a file of its own."""

    @pytest.mark.parametrize("by", ["PALAVER_SECRETS_DIR", "CREDENTIALS_DIRECTORY", "run"])
    @pytest.mark.parametrize("name", ["TELEGRAM_BOT_TOKEN", "telegram_bot_token"])
    def test_a_directory_of_secrets(self, place, read, monkeypatch, by, name):
        """Files called like the variables are read from all three places; other files are left alone."""
        folder = place / "secrets"
        folder.mkdir()
        (folder / name).write_text(f"{TOKEN}\n")
        (folder / "other_program").write_bytes(b"\xff\xfe")
        (folder / "..data").mkdir()
        if by == "run":
            monkeypatch.setattr(sources, "RUN_SECRETS", folder)
        loaded = read(**({} if by == "run" else {by: str(folder)}))
        assert loaded.settings.accounts["main"].token.get_secret_value() == TOKEN
        assert loaded.origin("accounts.main.token") == f"secret file {folder / name}"

    @pytest.mark.parametrize("name", ["TELEGRAM_BOT_TOKEN_FILE", "PALAVER_ACCOUNTS__MAIN__TOKEN_FILE"])
    def test_a_variable_that_names_a_file(self, place, read, name):
        """`<NAME>_FILE` works for exported and for our own names, from the environment and from .env."""
        (place / "token").write_text(f" {TOKEN}\n")
        for source in ({name: "token"}, {"dotenv": f"{name}={place / 'token'}\n"}):
            loaded = read('[accounts.main]\nplatform = "telegram"\n', **source)
            assert loaded.settings.accounts["main"].token.get_secret_value() == TOKEN
            (place / ".env").unlink(missing_ok=True)

    def test_log_file_is_no_pointer(self, read):
        """PALAVER_LOG__FILE is the setting log.file, not a file that holds PALAVER_LOG_."""
        assert str(read(PALAVER_LOG__FILE="/x/y.log").settings.log.file) == "/x/y.log"

    def test_a_missing_file_is_a_mistake(self, mistakes):
        """A named secret that cannot be read is told, with the variable that named it."""
        lines = mistakes(TELEGRAM_BOT_TOKEN_FILE="nowhere", PALAVER_AGENT__API_KEY_FILE="nowhere")
        assert [line.partition(":")[0] for line in sorted(lines)] == [
            "PALAVER_AGENT__API_KEY_FILE",
            "TELEGRAM_BOT_TOKEN_FILE",
        ]

    def test_value_and_file_together_are_a_mistake(self, place, mistakes):
        """Saying a setting twice in one source is not guessed about."""
        (place / "key").write_text("k")
        (line,) = mistakes(
            PALAVER_AGENT__API_KEY="k", PALAVER_AGENT__API_KEY_FILE="key", PALAVER_AGENT__MODEL="x:y"
        )
        assert line.startswith(
            "PALAVER_AGENT__API_KEY_FILE: says the same setting as PALAVER_AGENT__API_KEY."
        )

    def test_a_missing_directory_is_a_mistake(self, mistakes):
        """A secrets directory that was named must be there."""
        (line,) = mistakes(PALAVER_SECRETS_DIR="nowhere")
        assert "nowhere: cannot be listed: no such file or directory" in line


class TestConfigFile:
    """Which file is read, and what is said when it cannot be."""

    def test_the_order_of_places(self, place):
        """--config, then PALAVER_CONFIG, then the user's folder, then /etc/palaver; only one is read."""
        files = {
            "flag": place / "flag.toml",
            "variable": place / "variable.toml",
            "user": place / "xdg" / "palaver" / "config.toml",
            "system": sources.SYSTEM_CONFIG,
        }
        for name, file in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f'[http]\nhost = "{name}"\n')
        environ = {"XDG_CONFIG_HOME": str(place / "xdg")}
        named = {**environ, "PALAVER_CONFIG": "variable.toml"}
        assert load(files["flag"], environ=named, cwd=place).settings.http.host == "flag"
        assert load(environ=named, cwd=place).settings.http.host == "variable"
        assert load(environ=environ, cwd=place).settings.http.host == "user"
        files["user"].unlink()
        loaded = load(environ=environ, cwd=place)
        assert loaded.settings.http.host == "system"
        assert loaded.config_file == files["system"]

    @pytest.mark.parametrize("by", ["flag", "PALAVER_CONFIG"])
    def test_a_named_file_must_exist(self, place, by):
        """A named file that is missing is an error, not an empty configuration."""
        environ = {} if by == "flag" else {by: "x.toml"}
        with pytest.raises(ConfigErrors) as caught:
            load(place / "x.toml" if by == "flag" else None, environ=environ, cwd=place)
        assert "x.toml: there is no such file" in caught.value.lines()[0]

    def test_broken_toml_has_line_and_column(self, mistakes):
        """A syntax error is told with its place."""
        (line,) = mistakes("[http]\nport = \n")
        assert "is not valid TOML: invalid value  (config.toml line 2, column 8)" in line

    def test_a_file_that_is_no_text(self, place):
        """A file that is not UTF-8, and a directory, get a clear line."""
        (place / "x.toml").write_bytes(b"a = 1\nb = '\xff'\n")
        with pytest.raises(ConfigErrors, match=r"is not UTF-8 text  \(x.toml line 2\)"):
            load(place / "x.toml", environ={}, cwd=place)
        with pytest.raises(ConfigErrors, match="cannot be read: is a directory"):
            load(place, environ={}, cwd=place)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_an_unreadable_file(self, place):
        """A file without permission is an error that says so."""
        (place / "x.toml").write_text("")
        (place / "x.toml").chmod(0)
        with pytest.raises(ConfigErrors, match="permission denied"):
            load(place / "x.toml", environ={}, cwd=place)

    def test_lines_are_those_of_the_keys(self, mistakes):
        """Lists over several lines, comments, dotted keys and texts that look like tables do not shift the lines."""
        toml = (
            '# one\n[agent]\ntools = [\n  "a", # [http]\n  "b",\n]\ninstructions = """\n[x]\ny = 1\n"""\n'
            "a = 1\n\n[http]\nb = 2\nc.d = 3\n"
        )
        lines = mistakes(toml)
        assert [line[line.rindex("(") :] for line in lines] == [
            "(config.toml line 11)",
            "(config.toml line 14)",
            "(config.toml line 15)",
        ]

    def test_a_file_with_secrets_for_everyone_is_noticed(self, place):
        """A token in a file that all may read is worth a word, without one it is not."""
        file = place / "c.toml"
        file.write_text(f'[accounts.main]\nplatform = "telegram"\ntoken = "{TOKEN}"\n')
        file.chmod(0o644)
        assert "chmod 600" in load(file, environ={}, cwd=place).notices[0]
        file.chmod(0o600)
        assert load(file, environ={}, cwd=place).notices == ()
