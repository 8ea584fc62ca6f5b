"""(a) How accuracy falls with the budget, redrawing every epoch and with a fixed subset.

    python -m benchmarks.paper.a_budgets [--dataset folder:PATH] [--minutes 9] [--workers 2]

Published (figure in the README of the official code, CIFAR-10, read off to about 0.2):
unif-SGD 91.9, 92.8, 93.8, 93.9 at budgets 0.2, 0.3, 0.5, 0.7, the full run 94.6; a fixed
random subset 84.4, 87.6, 90.2, 91.8.
"""

from benchmarks.paper.scales import Part, main

CLAIM = "(a) unif-SGD against a fixed random subset, budgets 0.2 to 1"
BUDGETS = [0.2, 0.3, 0.5, 0.7]
PARTS: list[Part] = [
    {"method": "unif-SGD", "budget": [*BUDGETS, 1.0]},
    {"method": "random-subset", "budget": BUDGETS},
]

if __name__ == "__main__":
    main(CLAIM, PARTS)
