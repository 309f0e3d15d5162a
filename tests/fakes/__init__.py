"""Fake platform servers that speak the real wire protocols; each can also run as its own process."""
