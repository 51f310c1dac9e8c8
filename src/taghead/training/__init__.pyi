from .checkpoints import LastCheckpoint as LastCheckpoint
from .finetuning import StagedUnfreezing as StagedUnfreezing
from .report import TestReport as TestReport
from .task import ClassificationTask as ClassificationTask
