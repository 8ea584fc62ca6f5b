# isort: skip_file
from . import (
    analysis as analysis,
    augment as augment,
    budget as budget,
    config as config,
    course as course,
    custom_loop as custom_loop,
    data as data,
    devices as devices,
    errors as errors,
    estimators as estimators,
    explore as explore,
    forecast as forecast,
    history as history,
    methods as methods,
    models as models,
    plots as plots,
    records as records,
    report as report,
    samplers as samplers,
    sweeps as sweeps,
    training as training,
    widgets as widgets,
)
from .analysis import compare as compare, summaries as summaries
from .config import RunConfig as RunConfig
from .custom_loop import BudgetSampler as BudgetSampler
from .data import Dataset as Dataset, Splits as Splits
from .errors import InputError as InputError, RunError as RunError
from .history import History as History
from .methods import Method as Method
from .records import Record as Record, open_record as open_record, open_records as open_records
from .samplers import Batch as Batch, Sampler as Sampler, sampler as sampler
from .sweeps import Sweep as Sweep, sweep as sweep
from .training import Run as Run, train as train

__version__: str
