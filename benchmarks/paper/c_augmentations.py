"""(c) Augmentation against importance sampling, at three tenths of the budget.

    python -m benchmarks.paper.c_augmentations [--dataset folder:PATH] [--minutes 9] [--workers 2]

Published (abstract): at a budget of 0.3, RICAP keeps the accuracy of the full run with standard
augmentation, while importance sampling does not.
"""

from benchmarks.paper.scales import Part, main

CLAIM = "(c) variety by augmentation is worth more than importance sampling"
PARTS: list[Part] = [
    {
        "method": ["unif-SGD", "p-SGD"],
        "augmentation": ["standard", "mixup", "ricap", "randaugment"],
        "budget": 0.3,
    },
    {"method": "unif-SGD", "budget": 1.0},
]

if __name__ == "__main__":
    main(CLAIM, PARTS)
