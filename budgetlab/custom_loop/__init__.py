"""Use any method in your own training loop: a batch sampler, and one more line.

>>> sampler = bl.BudgetSampler(dataset, "p-SGD", budget=0.2, epochs=12)  # doctest: +SKIP
>>> loader = DataLoader(dataset, batch_sampler=sampler)  # doctest: +SKIP
>>> while not sampler.finished:  # doctest: +SKIP
...     for x, y in loader:
...         logits = model(x)
...         sampler.history.update(logits, y)  # the only other line
...         F.cross_entropy(logits, y).backward()
...     record = sampler.record(test_accuracy=...)  # what compare, plots and triage take
"""

from budgetlab.custom_loop.history import LoopHistory, measure_batch
from budgetlab.custom_loop.sampler import BudgetSampler

__all__ = ["BudgetSampler", "LoopHistory", "measure_batch"]
