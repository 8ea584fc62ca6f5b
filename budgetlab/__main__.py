"""Entry point of ``python -m budgetlab``."""

import sys


def main() -> int:
    """Run the command line and return its exit code: 130 if interrupted, even while it starts."""
    try:
        from budgetlab.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
