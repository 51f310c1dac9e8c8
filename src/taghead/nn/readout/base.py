"""`Readout`: the base class, and what a head asks of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import Aggregation, MeanAggregation

from taghead.operators.kernel import class_of


class NoTokenWeights(ValueError):
    """A readout has no weights of tokens, so there is no attention rollout through it."""


class Readout(nn.Module, ABC):
    """Base class of readouts: from the tokens of a clip to one vector.

    Args:
        channels: Width of every token.

    Shapes:
        - **x** `[B, T, P, channels]`; with P = 1, the means over each frame
        - **output** `[B, out_channels]`
    """

    out_channels: int
    """Width of the output."""

    uses_frame_means: ClassVar[bool] = False
    """Whether the output depends on frame means alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    def weights(self, x: Tensor) -> Tensor:
        """The weight of each token in the output, `[B, T*P]`; each clip's sum to 1.

        Raises:
            NoTokenWeights: If the readout has no such weights; a kind of ValueError.
        """
        raise no_token_weights(self)

    def aggregation(self) -> Aggregation:
        """The readout as a PyG aggregation with the same parameters, for graphs of any size.

        A `FrameAggregation` also takes each token's frame.

        Raises:
            ValueError: If there is none.
        """
        raise ValueError(f"readout: {type(self).__name__} has no aggregation of graphs")


class FrameAggregation(Aggregation):
    """A PyG aggregation that takes each token's frame as the keyword `frame`, `[M]`.

    It works on the means over the frames that have tokens.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanAggregation()

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        *,
        frame: Tensor,
    ) -> Tensor:
        self.assert_index_present(index)
        assert index is not None
        # [2, F]: the graph and the number of each frame that has tokens, sorted
        frames, frame_index = torch.stack([index, frame]).unique(dim=1, return_inverse=True)
        return self.of_frames(self.mean(x, frame_index), frames[0], dim_size)

    @abstractmethod
    def of_frames(self, means: Tensor, graph: Tensor, num_graphs: int | None) -> Tensor:
        """The vector of each graph, from its frames' means.

        Shapes:
            - **means** `[F, C]`: of the frames of all graphs, in order
            - **graph** `[F]`: each frame's graph
            - **output** `[B, C_out]`
        """


def no_token_weights(readout: nn.Module) -> NoTokenWeights:
    """The error of a readout without weights of tokens."""
    return NoTokenWeights(
        f"readout: {type(readout).__name__} has no weights of tokens, so there is no attention "
        f"rollout; readouts that have are mean, attention, frame_mean_max, frame_sequence and "
        f"last_frame, and saliency (token_saliency) needs none"
    )


def needs_frame_means_only(readout: nn.Module) -> bool:
    """Whether a readout depends on frame means alone; its exact class must declare it."""
    return vars(class_of(readout)).get("uses_frame_means", False)
