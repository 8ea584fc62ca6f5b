"""Log every epoch of a run to Weights & Biases, without an account: ``pip install wandb``, then

python examples/wandb_offline.py [FOLDER]
wandb sync FOLDER/wandb/offline-run-*    # only to upload it
"""

import sys
from typing import Any

import wandb

import budgetlab as bl


def main(folder: str = ".", **settings: Any) -> bl.Record:
    """Train, and log one row per epoch, with the settings as the configuration."""
    config = bl.RunConfig(method="p-SGD", **settings)
    with wandb.init(
        project="budgetlab", name=config.folder_name, config=config.to_dict(), dir=folder,
        mode="offline",
    ) as run:  # fmt: skip
        return bl.train(config, on_epoch=run.log)


if __name__ == "__main__":
    main(*sys.argv[1:], dataset="digits", budget=0.3, epochs=20)
