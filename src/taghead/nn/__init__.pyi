from .graph_model import GraphModel as GraphModel
from .head import TAGHead as TAGHead
from .message_passing import MessagePassingLayer as MessagePassingLayer
from .message_passing import TypedOperator as TypedOperator
from .positions import PositionalEncoding as PositionalEncoding
