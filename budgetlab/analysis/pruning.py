"""Scores by which core sets are chosen today, from the history of any run.

The methods ``ccs``, ``dyn-unc``, ``dual`` and ``tdds`` compute the same from a scoring run of
their own; :mod:`budgetlab.samplers.core_sets` has the sources.
"""

import numpy as np

PRUNING = ("el2n_early", "forgetting", "aum", "dyn_unc", "dual", "tdds")
"""Measures by which a core set is chosen; with ``measure_agreement``, high is what is kept."""

WINDOW, DUAL_EPOCHS, DECAY = 10, 30, 0.9
STRATA = 50
TINY = 1e-8


def aum_strata(aum: np.ndarray, count: int = STRATA) -> np.ndarray:
    """Ranges of AUM of the same width from which CCS draws evenly (Zheng et al., ICLR 2023).

    Parameters
    ----------
    aum
        float ``[N]``; NaN for a sample never visited.
    count
        How many ranges.

    Returns
    -------
    numpy.ndarray
        float64 ``[N]``: 0 for the easiest range to ``count - 1`` for the hardest, NaN as given.
    """
    if np.isnan(aum).all():
        return np.full(len(aum), np.nan)
    high, width = np.nanmax(aum), max(np.ptp(aum[~np.isnan(aum)]), 1e-300)
    return np.minimum(np.floor((high - aum) / width * count), count - 1)


class _Window:
    """Sums over the last ``length`` epochs of a value, ``[N]`` each; NaN for no visit."""

    def __init__(self, size: int, length: int):
        self._rows = np.full((length, size), np.nan, np.float32)
        self._next = self.epochs = 0
        self.count, self._sum, self._squares = np.zeros((3, size))

    def add(self, row: np.ndarray) -> bool:
        """Take in an epoch, and let the oldest go; whether the window is full."""
        for values, sign in ((self._rows[self._next], -1), (row, 1)):
            known = ~np.isnan(values)
            value = np.where(known, values, 0).astype(np.float64)
            self.count += sign * known
            self._sum += sign * value
            self._squares += sign * value**2
        self._rows[self._next] = row
        self._next = (self._next + 1) % len(self._rows)
        self.epochs += 1
        return self.epochs >= len(self._rows)

    def mean(self) -> np.ndarray:
        return self._sum / self.count

    def deviation(self) -> np.ndarray:
        """Sample standard deviation; NaN of fewer than two values."""
        squares = np.maximum(self._squares - self._sum**2 / self.count, 0)
        return np.where(self.count > 1, np.sqrt(squares / (self.count - 1)), np.nan)


class _Mean:
    """Mean over windows, NaN left out."""

    def __init__(self, size: int):
        self._sum, self._count = np.zeros((2, size))

    def add(self, values: np.ndarray) -> None:
        known = ~np.isnan(values)
        self._sum += np.where(known, values, 0)
        self._count += known

    def value(self) -> np.ndarray:
        return self._sum / self._count


class PruningScores:
    """Dyn-Unc, DUAL and TDDS over windows of ten epochs, fed one epoch at a time.

    A run of fewer epochs has one window. Memory is that of twenty epochs of one value.

    Parameters
    ----------
    size
        Number of samples ``N``.
    """

    def __init__(self, size: int):
        self._p_y, self._shift = _Window(size, WINDOW), _Window(size, WINDOW - 1)
        self._before = np.full(size, np.nan)
        self._dyn_unc, self._dual = _Mean(size), _Mean(size)
        self._tdds = np.full(size, np.nan)

    def add(self, p_y: np.ndarray) -> None:
        """Take in the ``p_y`` ``[N]`` of the visits of one epoch; NaN for none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._p_y.add(p_y):
                self._window_ends()
            # Of the first epoch there is no step from an earlier one.
            if self._p_y.epochs > 1 and self._shift.add(self._shifts(p_y)):
                self._tdds = self._discounted()
            np.copyto(self._before, p_y, where=~np.isnan(p_y))

    def _window_ends(self) -> None:
        deviation = self._p_y.deviation()
        self._dyn_unc.add(deviation)
        if self._p_y.epochs <= DUAL_EPOCHS:
            self._dual.add(deviation * (1 - self._p_y.mean()))

    def _shifts(self, p_y: np.ndarray) -> np.ndarray:
        """Contribution since the visit before, of the label and of all other classes as one."""
        parts = ((p_y, self._before), (1 - p_y, 1 - self._before))
        return sum(np.abs(now * np.log((now + TINY) / (then + TINY))) for now, then in parts)

    def _discounted(self) -> np.ndarray:
        lengths = self._shift.deviation() * np.sqrt(np.maximum(self._shift.count - 1, 0))
        older = (1 - DECAY) * self._tdds
        newer = np.where(np.isnan(older), 0, older) + DECAY * lengths
        return np.where(np.isnan(lengths), older, newer)

    def results(self) -> dict[str, np.ndarray]:
        """Return the scores, float64 ``[N]``; NaN where there were too few visits."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._p_y.epochs < WINDOW:
                self._window_ends()
                self._tdds = self._discounted()
            return {
                "dyn_unc": self._dyn_unc.value(),
                "dual": self._dual.value(),
                "tdds": self._tdds,
            }
