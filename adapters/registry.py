"""Platform name -> adapter class, imported only when an account needs it.

Owns the table and the sentence said when a class cannot be had. Making and wiring adapters is `bot/app.py`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
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
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing == module_name or module_name.startswith(f"{missing}."):
            reason = f"this installation does not contain it (no module {missing})"
        else:
            reason = f"it needs the Python package that provides {missing!r}, which is not installed"
        raise AdapterUnavailable(platform, reason) from error
    return cast(AdapterClass, getattr(module, class_name))
