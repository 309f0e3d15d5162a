"""The Discord adapter over the real discord.py, against a fake Discord."""
