"""Runs a frozen backbone: the feature maps of a shard's clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from taghead.backbones import Backbone
from taghead.data.annotations import Clip
from taghead.data.datamodule import OnError
from taghead.data.index.excluded import ExcludedClip
from taghead.errors import DataError, VideoError
from taghead.features.feature_spec import FeatureSpec
from taghead.features.shards import Shard
from taghead.features.view_dataset import ViewBatch

AUTOCAST = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class FrozenBackbone:
    """Runs a frozen backbone on the views of clips.

    Args:
        backbone: The backbone; it is set to evaluation mode and moved to the device.
        spec: The spec of the feature maps.
        device: Where the backbone runs.
        batch_size: Views in a batch.
        on_error: Whether a clip that cannot be read raises an error or is excluded.
    """

    def __init__(
        self, backbone: Backbone, spec: FeatureSpec, device: str, batch_size: int, on_error: OnError
    ) -> None:
        self.backbone = backbone.eval().to(device).to(memory_format=torch.channels_last_3d)
        self.spec = spec
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.on_error = on_error

    def shard(
        self, shard: Shard, batches: Iterator[ViewBatch], advance: Callable[[int], None]
    ) -> tuple[Tensor, dict[int, str]]:
        """The feature maps of a shard's clips, and the reason of each excluded clip, by its index.

        Args:
            shard: The shard.
            batches: The batches of its clips, in order.
            advance: Called with the number of views that were computed.

        Shapes:
            - **feature_maps** `[clips, views, C, T, H, W]`

        Raises:
            VideoError: If a clip cannot be read and `on_error` is raise.
            DataError: If a feature map exceeds the range of its dtype.
        """
        listed = self.spec.clips[shard.split]
        found: list[Tensor] = []
        excluded: dict[int, str] = {}
        done = 0
        while shard.start + done < shard.stop:
            items = next(batches)
            failed = {number: why for (_, number), why in items if isinstance(why, str)}
            if failed and self.on_error == "raise":
                number, reason = next(iter(failed.items()))
                raise VideoError(ExcludedClip.of(listed[number], reason).reason)
            excluded |= failed
            views = {number: clip for (_, number), clip in items if isinstance(clip, Tensor)}
            if views:
                feature_maps = self(torch.cat(list(views.values())))
                feature_maps = feature_maps.unflatten(0, (-1, shard.num_views))
                self._check_finite(feature_maps, [listed[number] for number in views])
                found.append(feature_maps)
            done += len(items)
            advance(len(items) * shard.num_views)
        empty = torch.empty(0, shard.num_views, *self.spec.feature_shape, dtype=self.dtype)
        return torch.cat(found) if found else empty, excluded

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.spec.dtype)

    @torch.inference_mode()
    def __call__(self, clips: Tensor) -> Tensor:
        """Clips `[B, 3, T_in, H_in, W_in]` to feature maps `[B, C, T, H, W]` on the CPU."""
        return torch.cat([self._feature_maps(part) for part in clips.split(self.batch_size)])

    def _feature_maps(self, clips: Tensor) -> Tensor:
        clips = clips.to(self.device, memory_format=torch.channels_last_3d)
        autocast = AUTOCAST[self.spec.precision]
        with torch.autocast(self.device.type, autocast, enabled=autocast is not None):
            feature_maps = self.backbone(clips)
        if tuple(feature_maps.shape[1:]) != self.spec.feature_shape:
            raise ValueError(
                f"{self.spec.backbone}: its feature maps must be "
                f"{list(self.spec.feature_shape)}, as it declares "
                f"(got {list(feature_maps.shape[1:])})"
            )
        return feature_maps.to(self.dtype).cpu()

    def _check_finite(self, feature_maps: Tensor, clips: Sequence[Clip]) -> None:
        for feature_map, clip in zip(feature_maps, clips, strict=True):
            if not feature_map.isfinite().all():
                raise DataError(
                    f"{clip.path}: its feature map has numbers that {self.spec.dtype} in "
                    f"precision {self.spec.precision} cannot hold; dtype bfloat16 may"
                )
