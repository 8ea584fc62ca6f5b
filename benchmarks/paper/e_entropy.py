"""(e) How evenly p-SGD spreads its visits, with and without smoothing and averaging.

    python -m benchmarks.paper.e_entropy [--dataset folder:PATH] [--minutes 9] [--workers 2]

Published (figure, CIFAR-10): entropies of the counts of about 10.39, 10.69, 10.77 and 10.81 for
the variants of p-SGD and the uniform draw; the maximum is ln 50000 = 10.82.
"""

from benchmarks.paper.scales import Part, main

CLAIM = "(e) entropy of the counts of p-SGD, with and without smoothing and averaging"
PARTS: list[Part] = [
    {
        "method": "p-SGD",
        "budget": 0.3,
        "smoothing": [0.0, 1.0],
        "averaging": ["last", "lifetime"],
    },
    {"method": "unif-SGD", "budget": 0.3},
]

if __name__ == "__main__":
    main(CLAIM, PARTS)
