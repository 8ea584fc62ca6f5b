"""A small sweep on a local Dask cluster, for trying it out.

    pip install 'budgetlab[dask]'
    python docs/cluster/local.py

To use a running cluster from the command line:

    dask scheduler &
    dask worker tcp://localhost:8786 --nworkers 2 --nthreads 1 &
    budgetlab sweep --method unif-SGD p-SGD --seed 0 1 2 --out runs --scheduler tcp://localhost:8786
"""

from distributed import LocalCluster

import budgetlab as bl


def main(out: str = "runs") -> None:
    """Train four small runs on two workers."""
    # A process trains one run at a time: a second thread would only wait.
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        sweep = bl.sweep(
            method=["unif-SGD", "p-SGD"],
            seed=[0, 1],
            dataset="points",
            epochs=4,
            out=out,
            scheduler=cluster.scheduler_address,
        )
        for row in sweep:
            print(row["method"], row["seed"], row["status"], row["test_accuracy"])


# Worker processes import this file: without this guard, each would start a sweep too.
if __name__ == "__main__":
    main()
