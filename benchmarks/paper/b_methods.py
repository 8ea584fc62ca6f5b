"""(b) Importance sampling against uniform sampling, standard augmentation.

    python -m benchmarks.paper.b_methods [--dataset folder:PATH] [--minutes 9] [--workers 2]

Published (abstract): under a budget, importance sampling is no consistent improvement over
uniform sampling. Budget 0.2 comes first.
"""

from benchmarks.paper.scales import Part, main

CLAIM = "(b) importance sampling is no consistent improvement over uniform sampling"
METHODS = ["SGD", "unif-SGD", "p-SGD", "c-SGD", "selective-backprop"]
PARTS: list[Part] = [
    {"method": METHODS, "budget": 0.2},
    {"method": METHODS, "budget": 0.3},
]

if __name__ == "__main__":
    main(CLAIM, PARTS)
