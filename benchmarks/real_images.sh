#!/usr/bin/env bash
# The table of real images in README.md: four methods, two budgets, five seeds.
#     benchmarks/real_images.sh [FOLDER OF IMAGES]
# Takes about half an hour on two CPU cores; needs budgetlab on the path. A run that is there
# already is not trained again.
set -euo pipefail
images=${1:-data/cifar10-jpeg}
budgetlab sweep --dataset "folder:$images" --limit 10000 --epochs 20 \
    --method SGD unif-SGD p-SGD c-SGD --budget 0.2 1.0 --seed 0 1 2 3 4 \
    --workers 2 --out runs/real-images
budgetlab compare runs/real-images
