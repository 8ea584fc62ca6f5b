"""Records: what a run leaves behind, as plain data that opens without torch.

A record is a folder:

=====================  =========================================================
``record.json``        configuration, versions, hardware, data fingerprint, status, summary
``epochs.csv``         one row per epoch: costs, learning rate, losses, accuracies
``samples.zarr``       xarray Dataset, dims epoch x sample; one chunk per epoch. ``p_y`` is
                       stored only where it differs from ``exp(-loss)``
``predictions.npz``    the prediction for each test sample after the last epoch
``thumbnails.npz``     small images of the most informative training samples
``model.safetensors``  the trained weights
``state.pt``           what resuming needs; loaded with ``weights_only=True``
=====================  =========================================================

Every file is replaced as a whole, so that a kill loses at most the epoch in progress. Nothing in
a record is ever unpickled.
"""

from budgetlab.records.format import (
    EPOCH_COLUMNS,
    FORMAT,
    SAMPLE_ARRAYS,
    plain,
    write_atomically,
    write_file,
)
from budgetlab.records.reader import (
    OneRecord,
    Record,
    Records,
    RecordWarning,
    find_records,
    open_record,
    open_records,
)
from budgetlab.records.thin import thin
from budgetlab.records.writer import RecordWriter

__all__ = ["EPOCH_COLUMNS", "FORMAT", "SAMPLE_ARRAYS", "OneRecord", "Record",
           "RecordWarning", "RecordWriter", "Records", "find_records", "open_record",
           "open_records", "plain", "thin", "write_atomically", "write_file"]  # fmt: skip
