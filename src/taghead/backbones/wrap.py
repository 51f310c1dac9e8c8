"""Wraps any video or image network as a backbone: a layer's output is the feature map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from taghead.backbones.backbone import Backbone, Size3
from taghead.backbones.frames import FrameByFrame
from taghead.errors import first_line
from taghead.graph.convert import from_tokens
from taghead.graph.grid import Grid
from taghead.video.preprocessing import Preprocessing


class WrappedBackbone(Backbone):
    """A backbone from any video network, or image network frame by frame, up to a chosen layer.

    A forward on a clip of zeros finds the width and the stride. Each forward stops at the layer, so
    later layers do not run. Parameters that the feature map does not depend on are frozen: weight
    decay would change them, and distributed training would wait for their gradients. The network's
    class and code stay unchanged.

    `wrap_backbone` is a function for the same. For a name in configs and saved models, make it a
    class of your own that takes no arguments::

        class MyBackbone(WrappedBackbone):
            def __init__(self) -> None:
                super().__init__(my_network(), feature="layer4")

    Args:
        module: The network, from a clip `[B, 3, T, H, W]` to anything; or from images
            `[M, 3, H, W]`, with `frame_by_frame`.
        feature: The layer's name in `named_modules`; its first call in a forward counts.
        patch: Frames, rows and columns of the clip per token, if the layer's output is a sequence
            of tokens `[B, N, C]`; tokens before those of the grid, such as a class token, are
            dropped. Of an image network `(1, rows, columns)`.
        channels_last: Whether the layer's output is `[B, T, H, W, C]`, of an image network
            `[M, H, W, C]`.
        preprocessing: The preprocessing that the network's weights were trained with; also the size
            of the clip of zeros. When not given, it is the paper's, and the weights are taken to be
            untrained.
        frame_by_frame: Whether the network takes images: the frames of all clips are one batch, and
            T is the number of frames (:class:`~taghead.backbones.FrameByFrame`).

    Raises:
        ValueError: If there is no such layer, the forward does not reach it, or its output is not
            a feature map.
    """

    def __init__(
        self,
        module: nn.Module,
        feature: str = "layer4",
        *,
        patch: Size3 | None = None,
        channels_last: bool = False,
        preprocessing: Preprocessing | None = None,
        frame_by_frame: bool = False,
    ) -> None:
        layers = dict(module.named_modules())
        if not feature or feature not in layers:
            raise ValueError(
                f"feature must be a layer of {type(module).__name__}: "
                f"{', '.join(_known_layers(feature, layers))} (got {feature!r})"
            )
        clips = preprocessing or Preprocessing()
        size = (clips.num_frames, clips.crop, clips.crop)
        truncated = TruncatedNetwork(module, feature, patch, channels_last, frame_by_frame)
        feature_map = truncated.probe(size, freeze=True)
        t, h, w = (
            max(1, round(before / after))
            for before, after in zip(size, feature_map.shape[2:], strict=True)
        )
        super().__init__(
            FrameByFrame(truncated) if frame_by_frame else truncated,
            feature_map.size(1),
            patch or (t, h, w),
            clips,
            weights=f"of {type(module).__name__}" if preprocessing else None,
        )
        self._grids = {size[:2]: Grid(*feature_map.shape[2:])}

    def grid(self, num_frames: int, size: int) -> Grid:
        """The grid of the feature map of a square clip, found by a forward on zeros."""
        if (num_frames, size) not in self._grids:
            features = self.features
            truncated = features.network if isinstance(features, FrameByFrame) else features
            feature_map = cast(TruncatedNetwork, truncated).probe((num_frames, size, size))
            self._grids[num_frames, size] = Grid(*feature_map.shape[2:])
        return self._grids[num_frames, size]


def wrap_backbone(
    module: nn.Module,
    feature: str = "layer4",
    *,
    patch: Size3 | None = None,
    channels_last: bool = False,
    preprocessing: Preprocessing | None = None,
    frame_by_frame: bool = False,
) -> WrappedBackbone:
    """A backbone of any video or image network; the arguments are those of `WrappedBackbone`."""
    return WrappedBackbone(
        module,
        feature,
        patch=patch,
        channels_last=channels_last,
        preprocessing=preprocessing,
        frame_by_frame=frame_by_frame,
    )


class TruncatedNetwork(nn.Module):
    """A network up to one of its layers, whose output becomes a feature map.

    Args:
        module: The network.
        feature: The layer's name.
        patch: Frames, rows and columns per token, if the layer's output is a sequence.
        channels_last: Whether the layer's output is `[B, T, H, W, C]`.
        takes_images: Whether it takes images, and all shapes are without T.

    Shapes:
        - **clip** `[B, 3, T_in, H_in, W_in]`, or images `[M, 3, H_in, W_in]`
        - **output** `[B, C, T, H, W]`, or `[M, C, H, W]`

    Raises:
        ValueError: If the forward does not reach the layer, or its output is not a feature map.
    """

    def __init__(
        self,
        module: nn.Module,
        feature: str,
        patch: Size3 | None,
        channels_last: bool,
        takes_images: bool = False,
    ) -> None:
        super().__init__()
        self.module = module
        self.feature = feature
        self.patch = patch
        self.channels_last = channels_last
        self.takes_images = takes_images

    def forward(self, clip: Tensor) -> Tensor:
        layer = self.module.get_submodule(self.feature)
        # a hook for this forward only: the module itself stays usable and picklable
        handle = layer.register_forward_hook(_stop)
        try:
            self.module(clip)
        except _Reached as reached:
            return self._feature_map(reached.output, clip)
        finally:
            handle.remove()
        raise ValueError(
            f"feature {self.feature!r}: the forward of {type(self.module).__name__} does not "
            f"reach this layer"
        )

    def probe(self, size: Size3, freeze: bool = False) -> Tensor:
        """The feature map of a clip of zeros, in evaluation mode.

        Args:
            size: The clip's (t, h, w).
            freeze: Whether to freeze the parameters that the feature map does not depend on.
        """
        tensor = next(self.module.parameters(), torch.zeros(()))
        clip = tensor.new_zeros(1, 3, *(size[1:] if self.takes_images else size))
        with _evaluating(self), torch.set_grad_enabled(freeze):
            feature_map = self._probe(clip)
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        if feature_map.requires_grad:
            gradients = torch.autograd.grad(feature_map.sum(), parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.requires_grad_(gradient is not None)
        feature_map = feature_map.detach()
        return (
            feature_map.unsqueeze(2).expand(-1, -1, size[0], -1, -1)
            if self.takes_images
            else feature_map
        )

    def _probe(self, clip: Tensor) -> Tensor:
        try:
            return self(clip)
        except RuntimeError as error:  # what torch raises if a convolution gets another dimension
            is_image_network = not any(isinstance(m, nn.Conv3d) for m in self.modules()) and any(
                isinstance(m, nn.Conv2d) for m in self.modules()
            )
            if self.takes_images or not is_image_network:
                raise
            raise ValueError(
                f"{type(self.module).__name__} does not take clips; an image network needs "
                f"frame_by_frame=True ({first_line(error)})"
            ) from error

    def _feature_map(self, output: Any, clip: Tensor) -> Tensor:
        if not self.takes_images:
            return self._video_map(output, clip)
        # one clip of one frame for each image
        is_map = isinstance(output, Tensor) and output.dim() == 4
        if is_map:
            output = output.unsqueeze(1 if self.channels_last else 2)
        return self._video_map(output, clip.unsqueeze(2)).squeeze(2)

    def _video_map(self, output: Any, clip: Tensor) -> Tensor:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if self.patch is not None and isinstance(output, Tensor) and output.dim() == 3:
            sizes = zip(clip.shape[2:], self.patch, strict=True)
            grid = Grid(*(max(1, length // step) for length, step in sizes))
            if output.size(1) < grid.num_nodes:
                raise ValueError(
                    f"feature {self.feature!r} must give {grid.num_nodes} tokens or more with the "
                    f"patch {self.patch} (got {shape})"
                )
            return from_tokens(output[:, -grid.num_nodes :], grid)
        if self.patch is not None or not isinstance(output, Tensor) or output.dim() != 5:
            dims = "[M, C, H, W]" if self.takes_images else "[B, C, T, H, W]"
            wanted = "[B, N, C]" if self.patch is not None else dims
            hint = "; for tokens, give their patch" if self.patch is None else ""
            raise ValueError(
                f"feature {self.feature!r} must give a tensor {wanted} (got {shape}{hint})"
            )
        return output.permute(0, 4, 1, 2, 3) if self.channels_last else output


class _Reached(Exception):
    """Raised to leave a forward with a layer's output."""

    def __init__(self, output: Any) -> None:
        self.output = output


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _Reached(output)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Sets a module to evaluation mode within a context; restores the mode of each submodule."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _known_layers(feature: str, layers: dict[str, nn.Module]) -> list[str]:
    """The layers inside the deepest existing layer of an unknown name."""
    parent = feature
    while parent and parent not in layers:
        parent = parent.rpartition(".")[0]
    depth = len(parent.split(".")) + 1 if parent else 1
    prefix = f"{parent}." if parent else ""
    found = [n for n in layers if n.startswith(prefix) and n and len(n.split(".")) == depth]
    return found or [n for n in layers if n and "." not in n]
