"""How logs look and where they go: structlog, the standard library's loggers and warnings, through one pipe.

Owns rendering, redaction and writing. What is logged is each area's own affair (event names: `docs/reference/events.md`).

A log line is made where it is logged and written by one thread of its own, from a bounded queue: a terminal that is
stopped, a pipe nobody reads or a full disk costs lines, which are counted and told of later, but never stops or fails
the program. `flush()` waits for the queue, within a limit; it runs at exit by itself.
"""

import atexit
import contextlib
import json
import logging
import os
import queue
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from config.errors import ConfigError
from config.redaction import HIDDEN, pattern_of, secrets_of
from config.settings import LogSettings, Settings, default_log_file

MAX_WAITING_LINES = 10_000
FLUSH_TIMEOUT_S = 2.0
_WRITE_TIMEOUT_S = 1.0

OWN_LOGGER = "palaver"
"""The standard logger with our name, for whoever looks for one; ours do not pass it. All others are libraries', heard from
warnings on."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# A name or a message from outside must not move the reader's cursor or ring the bell.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class _Secrets:
    """The values that no line may hold."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, value: str) -> None:
        if value and value not in self._values:
            self._values.add(value)
            self._pattern = pattern_of(self._values)

    def redact(self, line: str) -> str:
        return self._pattern.sub(HIDDEN, line) if self._pattern else line


_secrets = _Secrets()


def register_secret(value: str) -> None:
    """From now on `value` is replaced in every line, in whatever spelling: the Bot API's addresses hold the token.

    Values shorter than `redaction.MIN_SECRET_LENGTH` are not looked for.
    """
    _secrets.add(value)


def register_secrets(settings: Settings) -> None:
    """Register every secret of a configuration: tokens, keys, passwords in addresses."""
    for secret in secrets_of(settings):
        register_secret(secret)


def configure(settings: LogSettings, *, to_terminal_chat: bool = False, beside_output: bool = False) -> str:
    """Set up logging for the whole process; a second call replaces the first. Returns where the lines go.

    While a chat owns the terminal they go to a file even if none is configured; if that one cannot be opened they are
    dropped rather than mixed into the talk. Beside a command's output, which may be an export, they go to stderr.

    Raises: ConfigError when the configured file cannot be opened.
    """
    stop()
    file = settings.file or (default_log_file() if to_terminal_chat else None)
    stream = sys.stderr if beside_output else sys.stdout
    is_terminal = file is None and _is_terminal(stream)
    sink, destination = _open(settings.file, file, stream)
    is_pretty = settings.format == "pretty" or (settings.format == "auto" and is_terminal)
    handler = _Handler(sink)
    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[Processor] = [
        *(_pretty(is_colored=is_terminal and not os.environ.get("NO_COLOR")) if is_pretty else _json()),
        _redact,
    ]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.contextvars.merge_contextvars],
            processors=[*before, structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    level = _LEVELS[settings.level]
    structlog.configure(
        # Our own events go straight to the sink: a trip through the standard library costs a turn twice as much.
        processors=[_Renderer([structlog.contextvars.merge_contextvars, *before, *rendering], sink)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(sink),
        # Loggers are made at import, before this runs, and tests swap the processors.
        cache_logger_on_first_use=False,
    )
    own, root = logging.getLogger(OWN_LOGGER), logging.getLogger()
    own.handlers, own.propagate = [handler], False
    own.setLevel(logging.DEBUG)
    handler.setLevel(level)  # a library's logger with a level of its own does not ask the root's
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
    _Current.handler = handler
    return destination


def flush(timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
    """Wait until what was logged so far is written, at most `timeout_s`; False when the time was not enough."""
    return _Current.handler.sink.flush(timeout_s) if _Current.handler else True


def stop() -> None:
    """Undo `configure`: write what is waiting, close the file, give the standard loggers back."""
    handler, _Current.handler = _Current.handler, None
    if handler is None:
        return
    own, root = logging.getLogger(OWN_LOGGER), logging.getLogger()
    root.removeHandler(handler)
    root.setLevel(logging.WARNING)
    own.handlers, own.propagate = [], True
    own.setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    handler.sink.close()


class _Current:
    handler: "_Handler | None" = None


class _Sink:
    """The thread that writes lines, in order. Nothing here raises; what could not be written is counted."""

    def __init__(self, write: Callable[[str], None], close: Callable[[], None]) -> None:
        self._write = write
        self._close = close
        # The simple kind takes a line in a tenth of the time; the bound is ours to keep, to within a line for each thread.
        self._lines: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._lost = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="palaver-log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        if self._lines.qsize() < MAX_WAITING_LINES:
            self._lines.put(line)
        else:
            self.lose()

    def lose(self) -> None:
        with self._lock:
            self._lost += 1

    def flush(self, timeout_s: float) -> bool:
        written = threading.Event()
        self._lines.put(written)
        return written.wait(timeout_s)

    def close(self) -> None:
        if self.flush(FLUSH_TIMEOUT_S):
            self._lines.put(None)
            self._thread.join(FLUSH_TIMEOUT_S)

    def _run(self) -> None:
        while (item := self._lines.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
            elif not (self._tell_of_lost() and self._try(item)):
                self.lose()
        with contextlib.suppress(Exception):
            self._close()

    def _tell_of_lost(self) -> bool:
        """Before the next line goes out, say how many did not. False when not even this can be written."""
        with self._lock:
            lost, self._lost = self._lost, 0
        if not lost:
            return True
        entry = {"event": "log.lines_lost", "level": "warning", "count": lost, "timestamp": _now()}
        if self._try(json.dumps(entry)):
            return True
        with self._lock:
            self._lost += lost
        return False

    def _try(self, line: str) -> bool:
        try:
            self._write(line + "\n")
        except Exception:  # noqa: BLE001 - a full disk, a closed pipe, a stream someone replaced: none may end us
            return False
        return True


class _Lines:
    """What structlog's loggers hand a finished line to, by whatever level."""

    def __init__(self, sink: _Sink) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = sink.put


class _Renderer:
    """All that makes a line of an event. What cannot be rendered is counted as lost, never raised."""

    def __init__(self, processors: Sequence[Processor], sink: _Sink) -> None:
        self._processors = processors
        self._sink = sink

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> str:
        line: Any = event
        try:
            for processor in self._processors:
                line = processor(logger, name, line)
        except Exception:  # noqa: BLE001 - whatever an object's repr does, logging must not fail the caller
            self._sink.lose()
            raise structlog.DropEvent from None
        return str(line)


class _Handler(logging.Handler):
    def __init__(self, sink: _Sink) -> None:
        super().__init__()
        self.sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.sink.put(self.format(record))
        except Exception:  # noqa: BLE001 - whatever an object's repr does, logging must not fail the caller
            self.sink.lose()


def _open(named: Path | None, file: Path | None, stream: TextIO) -> tuple[_Sink, str]:
    if file is None:
        return _stream_sink(stream), "stderr" if stream is sys.stderr else "stdout"
    path = file.expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = (error.strerror or "error").lower()
        if named is not None:
            raise ConfigError("log.file", f"{path} cannot be opened: {reason}") from None
        return _Sink(lambda _: None, lambda: None), f"nowhere ({path} cannot be opened: {reason})"
    return _Sink(_descriptor_writer(descriptor), lambda: os.close(descriptor)), str(path)


def _stream_sink(stream: TextIO) -> _Sink:
    """Write past the stream's buffer where there is a descriptor: a buffer that cannot be flushed fails at exit."""
    try:
        with contextlib.suppress(OSError):
            stream.flush()
        descriptor = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return _Sink(_stream_writer(stream), lambda: None)
    return _Sink(_descriptor_writer(descriptor), lambda: os.close(descriptor))


def _stream_writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        stream.write(line)
        stream.flush()

    return write


def _descriptor_writer(descriptor: int) -> Callable[[str], None]:
    is_torn = False

    def write(line: str) -> None:
        nonlocal is_torn
        left = memoryview((("\n" if is_torn else "") + line).encode("utf-8", "backslashreplace"))
        while left:
            try:
                count = os.write(descriptor, left)
            except BlockingIOError:
                if not select.select([], [descriptor], [], _WRITE_TIMEOUT_S)[1]:
                    raise
                continue
            # A disk that fills up mid-line must not glue the next line to the torn one.
            is_torn = count < len(left)
            left = left[count:]

    return write


def _json() -> list[Processor]:
    transformer = structlog.tracebacks.ExceptionDictTransformer(
        show_locals=False
    )  # locals hold tokens and messages
    return [structlog.processors.ExceptionRenderer(transformer), _render_json]


def _pretty(*, is_colored: bool) -> list[Processor]:
    console = structlog.dev.ConsoleRenderer(
        colors=is_colored,
        exception_formatter=structlog.dev.plain_traceback,  # rich would show locals and break tokens over lines
    )
    return [_defuse, console]


def _render_json(_logger: WrappedLogger, _name: str, event: EventDict) -> str:
    ordered = {"timestamp": event.pop("timestamp", None), "level": event.pop("level", None), **event}
    try:
        return orjson.dumps(ordered, default=_fallback, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):  # a lone surrogate, a circle, a number beyond 64 bits
        return json.dumps({str(key): _fallback(value) for key, value in ordered.items()})


def _fallback(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _defuse(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str) and _CONTROL.search(value):
            event[key] = _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", value)
    return event


def _redact(_logger: WrappedLogger, _name: str, line: Any) -> str:
    """The last processor: it sees the finished line, so no value, key or traceback gets past it."""
    return _secrets.redact(str(line))


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (ValueError, AttributeError):
        return False


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


atexit.register(flush)
