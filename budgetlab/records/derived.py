"""Arrays of a record that follow from others, computed when they are read.

``p_y`` is ``exp(-loss)``. Written out it would cost a fifth of a record and say nothing new,
so it is stored only where a record was given something else.
"""

from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

__all__ = ["with_probability_of_label"]


class _ProbabilityOfLabel(xr.backends.BackendArray):
    """``p_y`` as it is stored, and ``exp(-loss)`` where nothing is."""

    def __init__(self, stored: xr.Variable, loss: xr.Variable):
        self.stored, self.loss = stored, loss
        self.shape, self.dtype = stored.shape, np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple) -> np.ndarray:
        stored = np.asarray(self.stored[key].values, np.float32)
        if not np.isnan(stored).any():
            return stored
        implied = np.exp(-np.asarray(self.loss[key].values, np.float32))
        return np.where(np.isnan(stored), implied, stored)


def with_probability_of_label(data: xr.Dataset) -> xr.Dataset:
    """Return a record's arrays with ``p_y`` filled in, still read lazily.

    Parameters
    ----------
    data
        With ``loss`` and ``p_y`` of the same shape ``[epochs, N]``.
    """
    stored, loss = data["p_y"].variable, data["loss"].variable
    if stored.dims != loss.dims:
        return data
    lazy = indexing.LazilyIndexedArray(_ProbabilityOfLabel(stored, loss))
    return data.assign(p_y=(stored.dims, lazy, stored.attrs))
