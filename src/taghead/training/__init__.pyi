from .finetuning import StagedUnfreezing as StagedUnfreezing
from .report import TestReport as TestReport
from .resume import LastCheckpoint as LastCheckpoint
from .task import ClassificationTask as ClassificationTask
