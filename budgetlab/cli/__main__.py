"""``python -m budgetlab.cli`` is ``budgetlab``."""

import sys

from budgetlab.cli import main

sys.exit(main())
