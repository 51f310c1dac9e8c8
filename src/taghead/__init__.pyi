__version__: str
from .graph.grid import Grid as Grid
from .graph.relations import FUTURE as FUTURE
from .graph.relations import INTRA_FRAME as INTRA_FRAME
from .graph.relations import PAST as PAST
from .graph.relations import TIME_ALIGNED as TIME_ALIGNED
from .model.classifier import VideoClassifier as VideoClassifier
from .nn.head import TAGHead as TAGHead
