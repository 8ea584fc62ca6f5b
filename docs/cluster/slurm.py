"""Template of a sweep on a Slurm cluster with dask-jobqueue.

Not run by this project's tests, for lack of such a cluster. Sweeps on a cluster of worker
processes on one machine are tested in ``tests/test_sweep_workers.py``.

    pip install 'budgetlab[dask]' dask-jobqueue
    python docs/cluster/slurm.py

Run it where jobs can be submitted. Environment, data and records must be in folders that all
nodes share. Stop it at any time: the same command continues.
"""

from dask_jobqueue import SLURMCluster
from distributed import Client

import budgetlab as bl

OUT = "/shared/me/runs"
DATA = "/shared/me/data"


def main() -> None:
    """Train a grid, one run per job."""
    # One job is one worker with one GPU, and trains one run at a time: one thread.
    cluster = SLURMCluster(
        queue="gpu",
        cores=1,
        processes=1,
        memory="16GB",
        walltime="04:00:00",
        job_cpu=4,
        job_extra_directives=["--gres=gpu:1"],
        # Threads of torch; Dask's default is one.
        job_script_prologue=[
            "export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__OMP_NUM_THREADS=4"
        ],
        # A worker ends before its time limit; its runs continue in the next one.
        worker_extra_args=["--lifetime", "225m", "--lifetime-stagger", "5m"],
    )
    cluster.adapt(minimum_jobs=0, maximum_jobs=16)
    with cluster, Client(cluster) as client:
        sweep = bl.sweep(
            method=["unif-SGD", "p-SGD", "c-SGD"],
            budget=[0.2, 0.3],
            seed=range(5),
            dataset="cifar10",
            epochs=200,
            out=OUT,
            data_root=DATA,
            executor=client.get_executor(),
        )
        for row in sweep:
            print(row["method"], row["budget"], row["seed"], row["status"], row["test_accuracy"])
    print(bl.analysis.table(bl.compare(sweep.records)))


if __name__ == "__main__":
    main()
