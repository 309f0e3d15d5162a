"""Who sits at this terminal, as the operating system tells it."""

import getpass
import os
import pwd
from collections.abc import Mapping

from adapters.messages import Sender
from config.names import PlatformUserId


def local_person(environ: Mapping[str, str] = os.environ) -> Sender:
    """The system user, with the full name from the user database and the language of the locale."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        name = str(os.getuid())
    try:
        full_name = pwd.getpwnam(name).pw_gecos.split(",")[0].strip()
    except KeyError:
        full_name = ""
    return Sender(PlatformUserId(name), full_name or name, name, locale_language(environ))


def locale_language(environ: Mapping[str, str]) -> str | None:
    """IETF tag of the locale (`de_AT.UTF-8` -> `de-at`); None for C, POSIX and none at all."""
    value = next((environ[key] for key in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(key)), "")
    tag = value.split(".")[0].split("@")[0].replace("_", "-").lower()
    return None if tag in ("", "c", "posix") else tag
