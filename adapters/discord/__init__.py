"""Discord, over discord.py: `adapter` lifecycle, `link` the library, `feed` order, `inbound` parsing, `sending` replies."""
