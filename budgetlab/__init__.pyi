from . import (
    analysis as analysis,
)
from . import (
    augment as augment,
)
from . import (
    budget as budget,
)
from . import (
    config as config,
)
from . import (
    course as course,
)
from . import (
    custom_loop as custom_loop,
)
from . import (
    custom_models as custom_models,
)
from . import (
    data as data,
)
from . import (
    devices as devices,
)
from . import (
    errors as errors,
)
from . import (
    estimators as estimators,
)
from . import (
    explore as explore,
)
from . import (
    forecast as forecast,
)
from . import (
    history as history,
)
from . import (
    methods as methods,
)
from . import (
    models as models,
)
from . import (
    plots as plots,
)
from . import (
    presets as presets,
)
from . import (
    records as records,
)
from . import (
    report as report,
)
from . import (
    samplers as samplers,
)
from . import (
    seeds as seeds,
)
from . import (
    sweeps as sweeps,
)
from . import (
    training as training,
)
from . import (
    widgets as widgets,
)
from .analysis import compare as compare
from .analysis import summaries as summaries
from .config import RunConfig as RunConfig
from .custom_loop import BudgetSampler as BudgetSampler
from .data import Dataset as Dataset
from .data import Splits as Splits
from .errors import InputError as InputError
from .errors import RunError as RunError
from .history import History as History
from .methods import Method as Method
from .records import Record as Record
from .records import open_record as open_record
from .records import open_records as open_records
from .samplers import Batch as Batch
from .samplers import Sampler as Sampler
from .samplers import sampler as sampler
from .sweeps import Sweep as Sweep
from .sweeps import sweep as sweep
from .training import Run as Run
from .training import train as train

__version__: str
