"""Platform name -> adapter class, imported only when an account needs it.

Owns the table and the sentence said when a class cannot be had. Making and wiring adapters is `bot/app.py`'s.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType, ModuleType
from typing import Protocol, cast

from adapters.base import Adapter
from adapters.messages import CommandSpec
from config.names import AccountId
from config.settings import AccountSettings

ADAPTERS: Mapping[str, str] = MappingProxyType(
    {
        "telegram": "adapters.telegram.adapter:TelegramAdapter",
        "discord": "adapters.discord.adapter:DiscordAdapter",
        "terminal": "adapters.terminal.adapter:TerminalAdapter",
        "memory": "adapters.memory.adapter:MemoryAdapter",
    }
)
"""Leaving a platform out is leaving out its line and its folder."""


class AdapterClass(Protocol):
    """How every adapter is made."""

    def __call__(
        self,
        account: AccountId,
        settings: AccountSettings,
        commands: Callable[[str], Sequence[CommandSpec]],
        *,
        language: str = "en",
    ) -> Adapter: ...


CheckUp = Callable[[AccountId, AccountSettings], Awaitable[str]]
"""Ask a platform who an account is. Gives a sentence. Raises: StartError with a hint, Unreachable."""


class AdapterUnavailable(Exception):
    """No adapter can be had for a platform. `reason` is one sentence for the operator."""

    def __init__(self, platform: str, reason: str) -> None:
        super().__init__(f"platform {platform!r}: {reason}")
        self.platform = platform
        self.reason = reason


def load(platform: str) -> AdapterClass:
    """The adapter class of a platform.

    Raises: AdapterUnavailable if the name is unknown or what its adapter needs is not installed. A mistake inside an
    adapter's own code is raised as it is.
    """
    try:
        address = ADAPTERS[platform]
    except KeyError:
        raise AdapterUnavailable(platform, f"unknown; there are {', '.join(sorted(ADAPTERS))}") from None
    module_name, _, class_name = address.partition(":")
    return cast(AdapterClass, getattr(_import(platform, module_name), class_name))


def load_checkup(platform: str) -> CheckUp | None:
    """A platform's `check_up` from the module `checkup` beside its adapter; None for one that has nothing to ask.

    Raises: AdapterUnavailable as `load`.
    """
    load(platform)
    package = ADAPTERS[platform].partition(":")[0].rpartition(".")[0]
    if find_spec(f"{package}.checkup") is None:
        return None
    return cast(CheckUp, _import(platform, f"{package}.checkup").check_up)


def _import(platform: str, module_name: str) -> ModuleType:
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing == module_name or module_name.startswith(f"{missing}."):
            reason = f"this installation does not contain it (no module {missing})"
        else:
            reason = f"it needs the Python package that provides {missing!r}, which is not installed"
        raise AdapterUnavailable(platform, reason) from error
