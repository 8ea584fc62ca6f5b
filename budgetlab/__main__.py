"""``python -m budgetlab`` is ``budgetlab``."""

import sys


def main() -> int:
    """Run the command line; returns the exit code, also where it is interrupted as it starts."""
    try:
        from budgetlab.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
