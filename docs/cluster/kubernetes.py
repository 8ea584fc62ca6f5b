"""Template of a sweep on Kubernetes with dask-kubernetes.

Not run by this project's tests, for lack of such a cluster. Sweeps on a cluster of worker
processes on one machine are tested in ``tests/test_sweep_workers.py``.

    pip install 'budgetlab[dask]' dask-kubernetes
    helm install --repo https://helm.dask.org --generate-name dask-kubernetes-operator
    python docs/cluster/kubernetes.py

``IMAGE`` is your image with ``budgetlab[dask]``, the same version as here. The volume ``CLAIM``
must allow several writers, and be mounted at ``SHARED`` on this machine too, where the sweep
reads the progress of the runs.
"""

from dask_kubernetes.operator import KubeCluster, make_cluster_spec
from distributed import Client

import budgetlab as bl

IMAGE = "registry.example.org/me/budgetlab:latest"
CLAIM = "budgetlab"
SHARED = "/shared"


def specification() -> dict:
    """Return a specification of workers with one GPU each, which train one run at a time."""
    spec = make_cluster_spec(
        name="budgetlab",
        image=IMAGE,
        n_workers=4,
        resources={"limits": {"nvidia.com/gpu": "1", "memory": "16Gi", "cpu": "4"}},
        worker_command=["dask", "worker", "--nthreads", "1"],
        env={"DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__OMP_NUM_THREADS": "4"},
    )
    pod = spec["spec"]["worker"]["spec"]
    pod["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": CLAIM}}]
    pod["containers"][0]["volumeMounts"] = [{"name": "shared", "mountPath": SHARED}]
    # Only the workers train: the scheduler must not take a GPU.
    spec["spec"]["scheduler"]["spec"]["containers"][0]["resources"] = {}
    return spec


def main() -> None:
    """Train a grid, one run per worker."""
    with KubeCluster(custom_cluster_spec=specification()) as cluster, Client(cluster) as client:
        sweep = bl.sweep(
            method=["unif-SGD", "p-SGD", "c-SGD"],
            budget=[0.2, 0.3],
            seed=range(5),
            dataset="cifar10",
            epochs=200,
            out=f"{SHARED}/runs",
            data_root=f"{SHARED}/data",
            executor=client.get_executor(),
        )
        for row in sweep:
            print(row["method"], row["budget"], row["seed"], row["status"], row["test_accuracy"])
    print(bl.analysis.table(bl.compare(sweep.records)))


if __name__ == "__main__":
    main()
