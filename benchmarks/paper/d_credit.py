"""(d) Who gets the credit for a patched image: p-SGD with RICAP under each rule.

    python -m benchmarks.paper.d_credit [--dataset folder:PATH] [--minutes 9] [--workers 2]

The published code credits row r of the batch to the sample drawn for row r, which under RICAP
may not be in the image at all. Not discussed in the paper: a question to its code.
"""

from benchmarks.paper.scales import Part, main

CLAIM = "(d) p-SGD with RICAP: credit by row (as published) against dominant and weighted"
PARTS: list[Part] = [
    {
        "method": "p-SGD",
        "augmentation": "ricap",
        "credit": ["row", "dominant", "weighted"],
        "budget": 0.3,
    },
]

if __name__ == "__main__":
    main(CLAIM, PARTS)
