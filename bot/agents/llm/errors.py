"""What went wrong with a model request, as an `AgentError` and whether another try may help.

Owns reading the libraries' errors; decisions follow their classes, never a message, except where servers tell a context that
is too long in words only. Details are for the operator, cut short, and never hold the key.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
    UserError,
)

from bot.agents.base import AgentError, AgentErrorKind
from bot.agents.llm.endpoints import Endpoint
from bot.agents.llm.wire import AnswerTooLarge, Exchange

_MAX_DETAIL_CHARS = 500

_TOO_LONG_WORDS = (
    "context length",
    "context size",
    "context window",
    "prompt is too long",
    "too many tokens",
    "exceed_context",
)
"""llama.cpp, Ollama and vLLM tell it in these words under a plain 400 (or 413)."""


class Faulty(Exception):
    """The server answered in good form, but the answer is of no use."""

    def __init__(self, detail: str, *, is_empty: bool = False) -> None:
        super().__init__(detail)
        self.is_empty = is_empty


class Cut(Exception):
    """The stream ended in the middle of the answer."""


class TooLarge(Exception):
    """The answer is longer than any we would show or keep."""


@dataclass(frozen=True, slots=True)
class Failure:
    error: AgentError
    is_retryable: bool
    has_cause: bool = False
    """The traceback may be kept: it comes from code, not from a server that may have echoed our request."""


def explain(error: Exception, endpoint: Endpoint, exchange: Exchange) -> Failure:
    """What an exception from a request means."""
    if any(isinstance(cause, AnswerTooLarge | TooLarge) for cause in _chain(error)):
        return _failure("bad_answer", "the answer is too large", endpoint, is_retryable=False)
    match error:
        case Cut():
            return _failure("unavailable", str(error), endpoint, is_retryable=True)
        case Faulty() | UnexpectedModelBehavior():
            return _failure("bad_answer", str(error), endpoint, is_retryable=True)
        case ModelAPIError():
            return _explain_api_error(error, endpoint)
        case UserError():
            return Failure(
                AgentError("fault", _clean(str(error), endpoint)), is_retryable=False, has_cause=True
            )
    if exchange.has_response:
        # The libraries stumble over an answer of the wrong shape with whatever exception comes first.
        detail = f"cannot read the answer: {type(error).__name__}: {error}"
        return Failure(AgentError("bad_answer", _clean(detail, endpoint)), is_retryable=True, has_cause=True)
    return Failure(
        AgentError("fault", _clean(f"{type(error).__name__}: {error}", endpoint)),
        is_retryable=False,
        has_cause=True,
    )


def _explain_api_error(error: ModelAPIError, endpoint: Endpoint) -> Failure:
    told = _told(error)
    status = error.status_code if isinstance(error, ModelHTTPError) else None
    may_retry = not isinstance(error, ModelHTTPError) or error.provider_retry_hint is not False
    kind: AgentErrorKind
    is_retryable = False
    match error:
        case ModelContextWindowExceededError():
            kind = "context_too_long"
        case ModelAuthenticationError() | ModelQuotaExceededError():
            kind = "refused_key"
        case ModelRateLimitError():
            kind, is_retryable = "rate_limited", True
        case ModelRequestTimeout():
            kind = "timeout"
        case ModelTimeoutError():
            # Waited for long enough already, except where no connection came about: the next may reach another host.
            kind, is_retryable = "timeout", error.phase in {"connect", "pool"}
        case ModelConnectionError() | ModelUnavailableError() | ModelServerError():
            kind, is_retryable = "unavailable", True
        case ModelHTTPError() if status == 404:
            kind = "unknown_model"
        case ModelHTTPError() if status in {408, 409, 425}:
            kind, is_retryable = "unavailable", True
        case ModelHTTPError() if status == 413 or any(word in told.lower() for word in _TOO_LONG_WORDS):
            kind = "context_too_long"
        case ModelHTTPError():
            kind = "fault"  # a request that the server does not accept: no retry can help
        case _ if any(word in told.lower() for word in _TOO_LONG_WORDS):
            kind = "context_too_long"
        case _ if error.in_stream:
            kind, is_retryable = "unavailable", True
        case _:
            kind, is_retryable = "bad_answer", True
    if kind == "unavailable" and any(word in told.lower() for word in _TOO_LONG_WORDS):
        kind, is_retryable = "context_too_long", False
    if kind == "timeout":
        told = "the server was silent for too long"
    place = f"HTTP {status}" if status else type(error).__name__
    detail = f"{place}: {told}" if told else place
    return _failure(
        kind, detail, endpoint, is_retryable=is_retryable and may_retry, retry_after_s=error.retry_after
    )


def _told(error: ModelAPIError) -> str:
    """The server's own code and message, without the request around it."""
    body = error.body
    inner = body.get("error", body) if isinstance(body, dict) else body
    message = inner.get("message") if isinstance(inner, dict) else inner
    if not isinstance(message, str) or not message.strip():
        message = "" if isinstance(error, ModelHTTPError) else error.message
    named = error.provider_error_code or error.provider_error_type
    return f"{named}: {message}" if named and message else named or message


def _failure(
    kind: AgentErrorKind,
    detail: str,
    endpoint: Endpoint,
    *,
    is_retryable: bool,
    retry_after_s: float | None = None,
) -> Failure:
    return Failure(AgentError(kind, _clean(detail, endpoint), retry_after_s=retry_after_s), is_retryable)


def _clean(detail: str, endpoint: Endpoint) -> str:
    text = f"{endpoint.name}: {' '.join(detail.split())}"
    if len(endpoint.api_key) > 4:  # "none" is no secret
        text = text.replace(endpoint.api_key, "***")
    return text if len(text) <= _MAX_DETAIL_CHARS else f"{text[:_MAX_DETAIL_CHARS]}…"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(20):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
