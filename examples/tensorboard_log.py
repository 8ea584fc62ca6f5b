"""Log every epoch of a run to TensorBoard: ``pip install tensorboard``, then

python examples/tensorboard_log.py [FOLDER]
tensorboard --logdir FOLDER
"""

import sys
from typing import Any

from torch.utils.tensorboard import SummaryWriter

import budgetlab as bl


def main(folder: str = "logs", **settings: Any) -> bl.Record:
    """Train, and log every value of every epoch against the number of optimiser steps."""
    with SummaryWriter(folder) as writer:

        def log(row: dict[str, Any]) -> None:
            for name, value in row.items():
                writer.add_scalar(name, value, row["steps"])

        return bl.train("p-SGD", on_epoch=log, **settings)


if __name__ == "__main__":
    main(*sys.argv[1:], dataset="digits", budget=0.3, epochs=20)
