"""The console script, and `python -P -m bot`: the command line, with a quiet end for Ctrl-C while it is still being loaded."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from bot.cli import main as run  # loading it takes a moment, in which somebody may think better of it

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
