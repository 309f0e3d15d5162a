"""The Telegram adapter over the real python-telegram-bot and real HTTP, against `tests.fakes.telegram`."""
