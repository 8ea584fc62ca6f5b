#!/usr/bin/env bash
# The table of real images in README.md: four methods, two budgets, five seeds.
#     benchmarks/real_images.sh [FOLDER OF IMAGES]
# Takes about 20 minutes on two CPU cores; needs budgetlab on the path. A run that is there
# already is not trained again.
set -euo pipefail
images=${1:-data/cifar10-jpeg}
out=runs/real-images
budgetlab sweep --dataset "folder:$images" --limit 10000 --epochs 20 \
    --method SGD unif-SGD p-SGD c-SGD --budget 0.2 1.0 --seed 0 1 2 3 4 \
    --workers 2 --out "$out"
budgetlab compare "$out"
python - "$out" "$(dirname "$0")/results/real_images.csv" << 'END'
import sys

import budgetlab as bl

settings = ["dataset", "method", "augmentation", "budget", "budget_unit", "seed"]
found = ["test_accuracy", "test_loss", "steps", "trained_samples", "looked_samples", "flops"]
runs = bl.analysis.summaries(bl.analysis.load(sys.argv[1]))[settings + found]
runs.sort_values(["budget", "method", "seed"]).to_csv(sys.argv[2], index=False, float_format="%.6g")
END
