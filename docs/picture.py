"""Draw the picture of the README from the records of the demo.

Run it with ``python docs/picture.py`` after ``make demo``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

import budgetlab as bl
from budgetlab.records import find_records, open_record

records = [open_record(path) for path in find_records("demo/runs")]
weighted = next(record for record in records if record.config["method"] == "p-SGD")
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
bl.plots.learning_curves(records, cost="trained_samples", ax=left)
bl.plots.sampling_probability(weighted, ax=right)
left.set_title("What accuracy costs", loc="left")
right.set_title("p-SGD: who is drawn more often", loc="left")
out = Path(__file__).parent / "images" / "demo.png"
figure.savefig(out, dpi=110)
print(f"{bl.plots.alt_text(left)}\n{bl.plots.alt_text(right)}\nwritten: docs/images/{out.name}")
