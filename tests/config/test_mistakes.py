"""How mistakes read: all of them, one line each, with place and next step."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from config.errors import ConfigError, ConfigErrors
from config.settings import DURATION_WANTED

ADDRESS_WANTED = "must be an address like https://host or https://host:port/path"
TOKEN = "123456:ABC-telegram-token"
BOT = f'[accounts.main]\nplatform = "telegram"\ntoken = "{TOKEN}"\n'


def test_a_misspelt_key_in_the_file(mistakes):
    """An unknown key is refused with the nearest known one and its line."""
    assert mistakes('# c\n[agent]\nmodle = "x"\n') == [
        "agent.modle: unknown setting; did you mean agent.model?  (config.toml line 3)"
    ]


@pytest.mark.parametrize(
    ("toml", "suggestion"),
    [
        ("[htpp]\nport = 1\n", "did you mean http?"),
        (
            '[accounts.main]\nplatform = "telegram"\ntoken = "1:a"\nTokn = "x"\n',
            "did you mean accounts.main.token?",
        ),
        ('api_key = "x"\n', "did you mean agent.api_key?"),
        ("[http]\nzzz = 1\n", "http.zzz: unknown setting  ("),
    ],
)
def test_suggestions(mistakes, toml, suggestion):
    """Siblings are suggested first, then a setting of that name elsewhere; without a likeness nothing is."""
    (line,) = mistakes(toml)
    assert suggestion in line


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("PALAVER_AGENT__MODLE", "unknown setting; did you mean PALAVER_AGENT__MODEL?  (environment)"),
        ("PALAVER_HTTP_PORT", "unknown setting; did you mean PALAVER_HTTP__PORT?  (environment)"),
        (
            "PALAVER_ACCOUNTS__MAIN__TOKN",
            "unknown setting; did you mean PALAVER_ACCOUNTS__MAIN__TOKEN?  (environment)",
        ),
        ("PALAVER_XYZZY", "unknown setting  (environment)"),
    ],
)
def test_a_misspelt_variable(mistakes, name, line):
    """An unknown PALAVER_ variable is refused by name, and its value is not shown."""
    assert mistakes(**{name: "the-value"}) == [f"{name}: {line}"]


def test_a_misspelt_variable_in_dotenv(mistakes):
    """The same in .env, with the line."""
    assert mistakes(dotenv="X=1\nPALAVER_LOG__LEVL=info\n") == [
        "PALAVER_LOG__LEVL: unknown setting; did you mean PALAVER_LOG__LEVEL?  (.env line 2)"
    ]


def test_variables_of_kubernetes_and_of_tests_are_none_of_ours(read):
    """A Kubernetes service called palaver injects names that must not stop the start."""
    read(
        PALAVER_SERVICE_HOST="10.0.0.1",
        PALAVER_SERVICE_PORT="80",
        PALAVER_SERVICE_PORT_HTTP="80",
        PALAVER_PORT="tcp://10.0.0.1:80",
        PALAVER_PORT_80_TCP="tcp://10.0.0.1:80",
        PALAVER_PORT_80_TCP_ADDR="10.0.0.1",
        PALAVER_DB_SERVICE_HOST="10.0.0.2",
        PALAVER_TEST_POSTGRES_URL="postgresql://x/y",
    )


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"PALAVER_HTTP__PORT": "http"}, "http.port: 'http': wanted is a whole number  (PALAVER_HTTP__PORT)"),
        ({"PALAVER_HTTP__PORT": "70000"}, "http.port: '70000': must be at most 65535  (PALAVER_HTTP__PORT)"),
        (
            {"PALAVER_HTTP__ENABLED": "maybe"},
            "http.enabled: 'maybe': wanted is true or false  (PALAVER_HTTP__ENABLED)",
        ),
        (
            {"PALAVER_LOG__LEVEL": "inof"},
            "log.level: 'inof': wanted is one of debug, info, warning, error; did you mean info?  (PALAVER_LOG__LEVEL)",
        ),
        (
            {"PALAVER_NODE__ROLES": "intake, sing"},
            "node.roles: 'sing': wanted is one of 'intake', 'turns', 'delivery' or 'web'  (PALAVER_NODE__ROLES)",
        ),
        (
            {"PALAVER_SESSIONS__EXPIRE_AFTER": "soon"},
            f"sessions.expire_after: 'soon': wanted is {DURATION_WANTED}  (PALAVER_SESSIONS__EXPIRE_AFTER)",
        ),
        (
            {"PALAVER_SESSIONS__EXPIRE_AFTER": "0s"},
            "sessions.expire_after: 0s: must be more than 0 seconds  (PALAVER_SESSIONS__EXPIRE_AFTER)",
        ),
        (
            {"PALAVER_SESSIONS__EXPIRE_AFTER": "9" * 30 + "d"},
            "sessions.expire_after: '" + "9" * 30 + "d': is too long  (PALAVER_SESSIONS__EXPIRE_AFTER)",
        ),
        (
            {"PALAVER_AGENT__BASE_URL": "ftp://me:geheim123@h/d"},
            f"agent.base_url: 'ftp://me:***@h/d': {ADDRESS_WANTED}  (PALAVER_AGENT__BASE_URL)",
        ),
        ({"PALAVER_HTTP": "{"}, 'http: wanted is an object in JSON, like {"key": "value"}  (PALAVER_HTTP)'),
        (
            {"PALAVER_ACCESS__ALLOW": "[1"},
            "access.allow: wanted is a list, as JSON or like: one, two  (PALAVER_ACCESS__ALLOW)",
        ),
        (
            {"PALAVER_ACCOUNTS__A__TOKEN": TOKEN},
            "accounts.a.platform: is not set. Wanted: telegram, discord, terminal, memory",
        ),
    ],
)
def test_a_wrong_value(mistakes, environ, line):
    """A wrong value is told with its path, what was given, what is wanted and where it came from."""
    assert mistakes(**environ) == [line]


def test_wrong_shapes_in_the_file(mistakes):
    """A table where a value belongs, a value where a table belongs, a word where a list belongs."""
    lines = mistakes(
        'http = 3\naccounts = "x"\n[access]\nallow = "*"\n[log]\nlevel = {}\n[agent]\nmodel = ["x"]\n'
    )
    assert sorted(lines) == [
        'access.allow: \'*\': wanted is a list, like ["one", "two"]  (config.toml line 4)',
        "accounts: 'x': wanted is a table  (config.toml line 2)",
        "agent.model: wanted is a text  (config.toml line 8)",
        "http: 3: wanted is a table  (config.toml line 1)",
        "log.level: wanted is one of debug, info, warning, error  (config.toml line 6)",
    ]


def test_roles_that_are_none(mistakes):
    """A word that is no role is told once, with those there are; a node without any role is none."""
    roles = "'intake', 'turns', 'delivery' or 'web'"
    assert mistakes(PALAVER_NODE__ROLES="Turns") == [
        f"node.roles: 'Turns': wanted is one of {roles}  (PALAVER_NODE__ROLES)"
    ]
    assert mistakes("[node]\nroles = []\n") == [
        "node.roles: wanted is at least one, not none  (config.toml line 2)"
    ]


def test_everything_is_told_at_once(mistakes):
    """Mistakes of all kinds and sources appear together, also those between settings."""
    lines = mistakes(
        '[accounts.main]\nplatform = "telegram"\nwebhook_url = "https://x.example"\npersona = "poett"\n'
        '[personas.poet]\n[http]\nenabled = false\nport = "x"\n[agent]\nmodle = 1\n',
        PALAVER_LOG__LEVEL="loud",
        PALAVER_NOPE="1",
    )
    assert [line.partition(": ")[0] for line in lines] == [
        "PALAVER_NOPE",
        "agent.modle",
        "http.port",
        "log.level",
        "accounts.main.token",
        "accounts.main.persona",
        "accounts.main.webhook_url",
    ]


@pytest.mark.parametrize(
    ("platform", "where", "variable"),
    [
        ("telegram", "@BotFather gives one with /newbot", "TELEGRAM_BOT_TOKEN"),
        ("discord", "Reset Token", "DISCORD_BOT_TOKEN"),
    ],
)
def test_a_missing_token_says_where_to_get_it(mistakes, platform, where, variable):
    """One line: what is missing, where it comes from, what to set."""
    (line,) = mistakes(f'[accounts.main]\nplatform = "{platform}"\n')
    assert line.startswith("accounts.main.token: is not set. ")
    assert where in line
    assert f"Set PALAVER_ACCOUNTS__MAIN__TOKEN or {variable}  (config.toml line 1)" in line


def test_an_empty_token_is_missing(mistakes):
    """`token = ""` is no token."""
    (line,) = mistakes('[accounts.main]\nplatform = "telegram"\ntoken = ""\n')
    assert "is not set" in line


@pytest.mark.parametrize(
    ("platform", "token"),
    [
        ("telegram", "notoken"),
        ("telegram", '"123:abc"'),
        ("telegram", "bot123:abc"),
        ("discord", "Bot abcdef"),
    ],
)
def test_a_token_of_the_wrong_shape(mistakes, platform, token):
    """A token that cannot be one is told before the platform refuses it, and is not shown."""
    (line,) = mistakes(PALAVER_ACCOUNTS__A__PLATFORM=platform, PALAVER_ACCOUNTS__A__TOKEN=token)
    assert "does not look like a" in line
    assert token not in line


def test_one_bot_is_one_account(mistakes):
    """The same token in two accounts would steal updates from itself."""
    (line,) = mistakes(BOT + BOT.replace("main", "other"))
    assert line.startswith("accounts.other.token: is the same token as accounts.main.token")
    assert TOKEN not in line


def test_a_disabled_account_is_not_checked(read):
    """An account that is off needs no token."""
    read('[accounts.main]\nplatform = "telegram"\nenabled = false\n')


@pytest.mark.parametrize(
    ("toml", "start"),
    [
        (
            BOT + 'webhook_url = "https://x.example"\n[http]\nenabled = false\n',
            "accounts.main.webhook_url: needs the HTTP server",
        ),
        (BOT + 'webhook_path = "hook"\n', "accounts.main.webhook_path: must begin with /"),
        (
            BOT
            + 'webhook_url = "https://x.example"\n[accounts.b]\nplatform = "telegram"\ntoken = "9:z"\n'
            + 'webhook_url = "https://x.example"\nwebhook_path = "/webhooks/main"\n',
            "accounts.b.webhook_path: is /webhooks/main, which accounts.main has already",
        ),
        (
            BOT + 'persona = "poet"\n',
            "accounts.main.persona: 'poet' is not among the personas. Add a table [personas.poet]",
        ),
        (BOT.replace("main", '"ma.in"'), "accounts.ma.in: cannot be a name of an account"),
        (
            BOT + 'gateway_url = "http://x"\n',
            "accounts.main.gateway_url: 'http://x': must be an address like wss://host",
        ),
        (
            BOT + 'api_url = "x.example"\n',
            "accounts.main.api_url: 'x.example': must be an address like https://host",
        ),
    ],
)
def test_rules_between_settings(mistakes, toml, start):
    """What is right alone and wrong together is told, with its line."""
    (line,) = mistakes(toml)
    assert line.startswith(start)
    assert "(config.toml line" in line


def test_several_accounts_are_ordinary(read):
    """Two bots on one platform are fine."""
    loaded = read(BOT + BOT.replace("main", "other").replace(TOKEN, "9:z"))
    assert len(loaded.settings.accounts) == 2


def test_an_error_is_one_line():
    """Whatever a value holds, a mistake stays on its line; a group has one for each."""
    error = ConfigError("a.b", "x\ny", "do\r\nthis", "c.toml line 1")
    assert error.lines() == ["a.b: x y. do this  (c.toml line 1)"]
    assert ConfigErrors([error, error]).lines() == error.lines() * 2


secrets = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=8, max_size=40
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(secret=secrets, where=st.sampled_from(["token", "key", "url", "query", "json", "toml", "exported"]))
def test_no_mistake_shows_a_secret(read, secret, where):
    """However wrong a configuration is, no line about it holds a token, a key or a password."""
    assume(secret not in ORDINARY)
    wrong = {"PALAVER_HTTP__PORT": "x", "PALAVER_NOPE": "1"}
    toml = None
    match where:
        case "token":
            wrong |= {"PALAVER_ACCOUNTS__A__TOKEN": secret, "PALAVER_ACCOUNTS__A__PLATFORM": "telegram"}
        case "key":
            wrong |= {"PALAVER_AGENT__API_KEY": secret, "PALAVER_AGENT__MODEL": secret}
        case "url":
            wrong |= {"PALAVER_DATABASE_URL": f"mysql://me:{secret}@host/x"}
        case "query":
            quiet = "".join(letter for letter in secret if letter not in "&;#")
            assume(len(quiet) >= 8)
            secret = quiet
            wrong |= {"PALAVER_AGENT__BASE_URL": f"ftp://host/x?api_key={secret}"}
        case "json":
            wrong |= {"PALAVER_ACCOUNTS": '{"a": {"token": "' + secret + '"'}
        case "toml":
            escaped = secret.replace("\\", "\\\\").replace('"', '\\"')
            toml = f'[accounts.a]\ntoken = ["{escaped}"]\nplatform = "{escaped}"\n'
        case "exported":
            wrong |= {"TELEGRAM_BOT_TOKEN": secret, "OPENAI_API_KEY": secret, "PALAVER_AGENT__MODEL": "x"}
    with pytest.raises(ConfigErrors) as caught:
        read(toml, **wrong)
    assert secret not in str(caught.value)
    assert repr(secret)[1:-1] not in str(caught.value)


ORDINARY = "accounts.a.token platform agent.api_key agent.model database_url environment unknown setting"
