"""Any video network as a backbone: the output of one of its layers is the feature map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from taghead.backbones.base import Backbone, Size3
from taghead.graph.convert import from_tokens
from taghead.graph.grid import Grid
from taghead.video.preprocessing import Preprocessing


class WrappedBackbone(Backbone):
    """A video network of your own, up to one of its layers.

    A forward through the network on a clip of zeros finds the width and the stride. Each forward
    ends at the layer: what the network does after it is not run, and parameters that the feature
    map does not depend on are frozen, so that neither weight decay nor distributed training waits
    for them. Neither the network's class nor its code is changed.

    `wrap_backbone` is the same as a function. So that a config or a saved model can name it, make
    it a class of your own that takes no arguments::

        class MyBackbone(WrappedBackbone):
            def __init__(self) -> None:
                super().__init__(my_network(), feature="layer4")

    Args:
        module: From a clip `[B, 3, T, H, W]` to anything.
        feature: The layer's name, as `named_modules` gives it; its first run in a forward counts.
        patch: Pixels of the clip per token along (t, h, w), if the layer gives a sequence of
            tokens `[B, N, C]`; tokens in front of the grid's, such as a class token, are left out.
        channels_last: Whether the layer gives `[B, T, H, W, C]`.
        preprocessing: How the clips were made that the module's weights were trained on, which
            also says the size of the first clip; when it is not given the paper's, and no weights
            are taken to be trained.

    Raises:
        ValueError: If there is no such layer, the forward does not reach it, or it does not give
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
    ) -> None:
        layers = dict(module.named_modules())
        if not feature or feature not in layers:
            raise ValueError(
                f"feature must be a layer of {type(module).__name__}: "
                f"{', '.join(_near(feature, layers))} (got {feature!r})"
            )
        clips = preprocessing or Preprocessing()
        size = (clips.num_frames, clips.crop, clips.crop)
        features = UpTo(module, feature, patch, channels_last)
        feature_map = features.probe(size, freeze=True)
        t, h, w = (
            max(1, round(before / after))
            for before, after in zip(size, feature_map.shape[2:], strict=True)
        )
        super().__init__(
            features,
            feature_map.size(1),
            patch or (t, h, w),
            clips,
            weights=f"of {type(module).__name__}" if preprocessing else None,
        )
        self._grids = {size[:2]: Grid(*feature_map.shape[2:])}

    def grid(self, num_frames: int, size: int) -> Grid:
        """The grid of the feature map of a square clip, as a forward on zeros has it."""
        if (num_frames, size) not in self._grids:
            feature_map = cast(UpTo, self.features).probe((num_frames, size, size))
            self._grids[num_frames, size] = Grid(*feature_map.shape[2:])
        return self._grids[num_frames, size]


def wrap_backbone(
    module: nn.Module,
    feature: str = "layer4",
    *,
    patch: Size3 | None = None,
    channels_last: bool = False,
    preprocessing: Preprocessing | None = None,
) -> WrappedBackbone:
    """A video network of your own as a backbone; the arguments are those of `WrappedBackbone`."""
    return WrappedBackbone(
        module, feature, patch=patch, channels_last=channels_last, preprocessing=preprocessing
    )


class UpTo(nn.Module):
    """A network up to one of its layers, whose output it gives as a feature map.

    Args:
        module: The network.
        feature: The layer's name.
        patch: Pixels of the clip per token, if the layer gives a sequence.
        channels_last: Whether the layer gives `[B, T, H, W, C]`.

    Shapes:
        - **clip** `[B, 3, T_in, H_in, W_in]`
        - **output** `[B, C, T, H, W]`

    Raises:
        ValueError: If the forward does not reach the layer, or it gives no feature map.
    """

    def __init__(
        self, module: nn.Module, feature: str, patch: Size3 | None, channels_last: bool
    ) -> None:
        super().__init__()
        self.module = module
        self.feature = feature
        self.patch = patch
        self.channels_last = channels_last

    def forward(self, clip: Tensor) -> Tensor:
        layer = self.module.get_submodule(self.feature)
        # a hook for this forward alone: the module stays usable and picklable by itself
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
        """The feature map of a clip of zeros, in evaluation.

        Args:
            size: The clip's (t, h, w).
            freeze: Whether to freeze the parameters that the feature map does not depend on.
        """
        tensor = next(self.module.parameters(), torch.zeros(()))
        with _evaluating(self), torch.set_grad_enabled(freeze):
            feature_map = self(tensor.new_zeros(1, 3, *size))
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        if feature_map.requires_grad:
            gradients = torch.autograd.grad(feature_map.sum(), parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.requires_grad_(gradient is not None)
        return feature_map.detach()

    def _feature_map(self, output: Any, clip: Tensor) -> Tensor:
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
            wanted = "[B, N, C]" if self.patch is not None else "[B, C, T, H, W]"
            hint = "; for tokens say their patch" if self.patch is None else ""
            raise ValueError(
                f"feature {self.feature!r} must give a tensor {wanted} (got {shape}{hint})"
            )
        return output.permute(0, 4, 1, 2, 3) if self.channels_last else output


class _Reached(Exception):
    """Leaves a forward with a layer's output."""

    def __init__(self, output: Any) -> None:
        self.output = output


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _Reached(output)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """All of a module's parts in evaluation, and after it each as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _near(feature: str, layers: dict[str, nn.Module]) -> list[str]:
    """The layers inside the innermost one that the name does reach."""
    parent = feature
    while parent and parent not in layers:
        parent = parent.rpartition(".")[0]
    depth = len(parent.split(".")) + 1 if parent else 1
    prefix = f"{parent}." if parent else ""
    found = [n for n in layers if n.startswith(prefix) and n and len(n.split(".")) == depth]
    return found or [n for n in layers if n and "." not in n]
