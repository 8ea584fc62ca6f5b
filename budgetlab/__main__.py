"""``python -m budgetlab`` is ``budgetlab``."""

import sys

from budgetlab.cli import main

sys.exit(main())
