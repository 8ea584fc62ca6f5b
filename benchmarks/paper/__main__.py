"""All claims in the order of what is learned first, within the minutes of one sitting.

    python -m benchmarks.paper --dataset folder:data/cifar10-jpeg --minutes 9 --workers 2
    python -m benchmarks.paper --scale cpu --dataset folder:data/cifar10-jpeg --workers 2

What is finished is in benchmarks/results/paper.csv (paper_cpu.csv) and is not run again.
"""

import sys
import time
from collections.abc import Sequence

from benchmarks.paper import a_budgets, b_methods, c_augmentations, d_credit, e_entropy
from benchmarks.paper.scales import main, options

ORDER = [
    (d_credit.CLAIM, d_credit.PARTS),
    (f"{b_methods.CLAIM}, budget 0.2", b_methods.PARTS[:1]),
    (c_augmentations.CLAIM, c_augmentations.PARTS),
    (b_methods.CLAIM, b_methods.PARTS),
    (a_budgets.CLAIM, a_budgets.PARTS),
    (e_entropy.CLAIM, e_entropy.PARTS),
]


def run(arguments: Sequence[str]) -> None:
    """Run the claims one after the other until the minutes are over."""
    given = options(__doc__.splitlines()[0]).parse_args(arguments)
    began = time.monotonic()
    for claim, parts in ORDER:
        left = given.minutes - (time.monotonic() - began) / 60
        if left <= 0:
            return
        # The last value of an option counts.
        main(claim, parts, [*arguments, "--minutes", str(left)])


if __name__ == "__main__":
    run(sys.argv[1:])
