#!/usr/bin/env bash
# The table of real images in README.md: four methods, two budgets, two seeds.
#     benchmarks/real_images.sh [FOLDER OF IMAGES]
# Takes about a quarter of an hour on two CPU cores; needs budgetlab on the path.
set -euo pipefail
images=${1:-data/cifar10-jpeg}
for seed in 0 1; do
    for budget in 0.2 1.0; do
        for method in SGD unif-SGD p-SGD c-SGD; do
            budgetlab train --dataset "folder:$images" --limit 10000 --epochs 20 \
                --method "$method" --budget "$budget" --seed "$seed" --out runs/real-images
        done
    done
done
budgetlab compare runs/real-images
