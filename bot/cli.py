"""The command line: `palaver run`, `chat`, `check-config`, `doctor`, `migrate`, `why`, `sessions`.

Owns arguments, exit codes and how errors read. Exit codes: 0 stopped, 2 usage, 78 configuration, 69 unavailable, 70 fault.
"""

import os
import stat
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import structlog
import typer

from adapters.errors import StartError
from adapters.registry import AdapterUnavailable
from bot import app as daemon
from bot import context_cli, history_cli, keeping_cli, moving_cli, roles_cli, shell, story
from bot import doctor as examination
from bot.audit_cli import audit
from bot.catalogue import CatalogueError
from bot.quarantine_cli import quarantine_cli
from bot.session_cli import sessions_cli
from bot.shell import CONFIGURATION, UNAVAILABLE, ConfigOption, FormatOption, JsonOption, LevelOption
from bot.shell import beside as _beside
from bot.shell import fail as _fail
from bot.shell import finish as _finish
from bot.shell import load as _load
from config import logging as logs
from config import report
from config.errors import ConfigError
from config.sources import Loaded
from sessions import history
from sessions.database.base import Database

log = structlog.get_logger()

cli = typer.Typer(
    name="palaver",
    help="One bot for a whole community, on every chat platform it uses.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """What `bot/__main__.py` runs."""
    os.umask(0o077)  # conversations are nobody else's to read
    try:
        cli()
    except OSError as error:  # what a command does is translated where it is done; this is its output
        shell.give_up_stdout()
        typer.echo(f"palaver: cannot write to stdout: {error.strerror}.", err=True)
        sys.exit(UNAVAILABLE)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"palaver {version('palaver')}")
        raise typer.Exit


@cli.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@cli.command()
def run(
    config: ConfigOption = None,
    roles: Annotated[
        str | None,
        typer.Option(
            help="What this node does of intake, turns, delivery and web; default: node.roles, which is all of it."
        ),
    ] = None,
    log_level: LevelOption = None,
    log_format: FormatOption = None,
) -> None:
    """Run the daemon. With no account configured, chat in this terminal."""
    loaded = _load(config, log_level, log_format, roles)
    accounts = daemon.accounts_of(loaded.settings)
    if daemon.TERMINAL in accounts:
        if not _has_reader():
            _fail(
                CONFIGURATION,
                "accounts: none is configured, and there is no terminal to chat in.",
                "Set TELEGRAM_BOT_TOKEN or DISCORD_BOT_TOKEN, or add a table [accounts.<name>] to the config file.",
            )
        _chat(loaded)
        return
    _serve(loaded, only_terminal=False)


@cli.command()
def chat(config: ConfigOption = None, log_level: LevelOption = None, log_format: FormatOption = None) -> None:
    """Chat in this terminal. With a pipe, each line is a message and each reply is printed."""
    _chat(_load(config, log_level, log_format))


@cli.command("check-config")
def check_config(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the settings in force, or what is wrong with them. Secrets are hidden."""
    loaded = _load(config)
    clashes = report.name_clashes()
    if clashes:
        _fail(CONFIGURATION, *clashes)
    try:
        daemon.check(loaded.settings)
    except StartError as error:
        _fail(CONFIGURATION, str(error), error.hint)
    except (CatalogueError, ConfigError, AdapterUnavailable) as error:
        _fail(CONFIGURATION, str(error))
    typer.echo(report.as_json(loaded) if as_json else report.text(loaded))


@cli.command()
def doctor(config: ConfigOption = None) -> None:
    """Look at settings, database, platforms and model. And say what to do about what is wrong."""
    loaded = _load(config)
    shell.quiet()
    findings = _finish(examination.examine(loaded))
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        typer.echo(finding.line(width))
    if any(not finding.is_good for finding in findings):
        raise typer.Exit(UNAVAILABLE)


@cli.command(context_settings={"ignore_unknown_options": True})  # the ids of Telegram's groups begin with -
def why(
    message: Annotated[
        list[str],
        typer.Argument(
            help="A reference, a message id, or ACCOUNT CHANNEL MESSAGE (telegram.main 8841 1207)."
        ),
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell the story of one message. Received, decided, queued, answered, delivered."""
    for word in message:
        if word.startswith("-") and not word[1:].isdecimal():
            _fail(2, f"why: there is no option {word}; palaver why --help lists them.")
    if len(message) not in (1, 3):
        _fail(2, "why: give one word (a reference or a message id), or three: ACCOUNT CHANNEL MESSAGE.")
    loaded = _load(config)

    async def work(database: Database) -> list[history.Trace]:
        return await database.read(
            lambda tx: [history.trace(tx, row) for row in history.find_inbox(tx, message)]
        )

    traces = _finish(_beside(loaded, work))
    if not traces:
        _fail(
            1,
            f"why: nothing is known of {' '.join(message)}.",
            "It never reached Palaver, or was removed by the clean-up.",
        )
    typer.echo(story.as_json(traces) if as_json else "\n\n".join(story.tell(trace) for trace in traces))


def _chat(loaded: Loaded) -> None:
    """The chat owns the terminal: logs go to a file, and HTTP is left out unless it was asked for."""
    if loaded.origin("http.enabled") == "default" and not any(
        name.startswith("http.") for name in loaded.origins
    ):
        settings = loaded.settings.model_copy(
            update={"http": loaded.settings.http.model_copy(update={"enabled": False})}
        )
        loaded = Loaded(settings, loaded.origins, loaded.config_file, loaded.notices)
    _serve(loaded, only_terminal=True)


def _serve(loaded: Loaded, *, only_terminal: bool) -> None:
    settings = loaded.settings
    logs.register_secrets(settings)
    accounts = daemon.accounts_of(settings, only_terminal=only_terminal)
    owns_terminal = any(account.platform == "terminal" for account in accounts.values())
    is_interactive = owns_terminal and sys.stdin is not None and sys.stdin.isatty()
    try:
        destination = logs.configure(settings.log, to_terminal_chat=owns_terminal)
    except ConfigError as error:
        _fail(CONFIGURATION, str(error))
    for notice in loaded.notices:
        log.warning("config.notice_given", notice=notice)

    place = shell.database_place(settings.database_url)  # whether it is new, the start changes
    written_to = shell.in_home(Path(destination)) if destination.startswith("/") else destination

    def on_started(app: daemon.App) -> None:
        if is_interactive:
            app.delivery.shows_tools_on |= {
                name for name, account in accounts.items() if account.platform == "terminal"
            }
            for adapter in app.adapters.values():
                announce = getattr(adapter, "announce", None)
                if announce is not None:
                    announce(story.welcome(settings, app.agent_name(), place, written_to))

    _finish(daemon.serve(settings, accounts, on_started=on_started))
    logs.flush()
    logs.stop()


def _has_reader() -> bool:
    """Whether somebody can write to us: a terminal, a pipe or a file, not /dev/null."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return os.isatty(0) or stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


# The rest of the list that --help shows, in its order: groups come last there.
cli.command()(history_cli.search)
cli.command()(history_cli.stats)
cli.command()(audit)
keeping_cli.register(cli)
cli.command()(moving_cli.migrate)
cli.add_typer(sessions_cli, name="sessions")
sessions_cli.command("context")(context_cli.show_context)
sessions_cli.command("resummarise")(context_cli.resummarise)
roles_cli.register()
cli.add_typer(quarantine_cli, name="quarantine")
