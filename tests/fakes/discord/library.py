"""Where discord.py of this process looks for Discord; it has no constructor option for that."""

from collections.abc import Iterator
from contextlib import contextmanager

import yarl


@contextmanager
def point_library(api_url: str, gateway_url: str) -> Iterator[None]:
    """Point discord.py at these addresses, and back to where it was at the end."""
    import discord  # only here: the fake itself, in a process of its own, does without the library

    route, gateway = discord.http.Route, discord.gateway.DiscordWebSocket
    before = (route.BASE, gateway.DEFAULT_GATEWAY)
    route.BASE, gateway.DEFAULT_GATEWAY = api_url, yarl.URL(gateway_url)
    try:
        yield
    finally:
        route.BASE, gateway.DEFAULT_GATEWAY = before
