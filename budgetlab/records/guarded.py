"""Arrays of a record that say in a sentence what cannot be read, when it is asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from budgetlab.errors import InputError

__all__ = ["guarded"]


class _Guarded(xr.backends.BackendArray):
    """An array on disk; damage raises one kind of error."""

    def __init__(self, inside: xr.Variable, path: Path):
        self.inside, self.path = inside, path
        self.shape, self.dtype = inside.shape, inside.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple) -> np.ndarray:
        try:
            return np.asarray(self.inside[key].values)
        except Exception as error:
            # zarr and its compressors raise many kinds of error on damaged files.
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            raise InputError(f"'{self.path}' cannot be read: {reason}") from None


def guarded(data: xr.Dataset, path: Path) -> xr.Dataset:
    """Return the arrays of a record as they are, still read lazily.

    Parameters
    ----------
    data
        As opened from ``path``.
    path
        Folder of the arrays, to be named where one of them is damaged.
    """
    wrapped = {}
    for name, values in data.data_vars.items():
        lazy = indexing.LazilyIndexedArray(_Guarded(values.variable, path / str(name)))
        wrapped[name] = (values.dims, lazy, values.attrs)
    return data.assign(wrapped)
