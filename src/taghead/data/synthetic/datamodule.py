"""The Lightning data module of generated clips."""

from __future__ import annotations

from typing import Literal

from taghead.data import synthetic
from taghead.data.datamodule import OnError, VideoDataModule
from taghead.video.preprocessing import Preprocessing


class SynthGym(VideoDataModule):
    """Generated clips of a gymnast, written to a folder of videos when they are not there yet.

    Args:
        root: The folder for videos and annotation files.
        family: `somersault`, 18 classes of direction, shape and half twists, or `order`, classes
            that differ only in when something happens.
        level: How much camera, looks, timing and noise vary, 0 to 1.
        mirror: Probability that a clip is mirrored.
        num_train: Clips to train on.
        num_val: Clips to validate on; with 0 there is no validation split.
        num_test: Clips to test on; with 0 there is no test split.
        data_seed: Seed of the clips; each split draws from seeds of its own.
        preprocessing: How frames are sampled and transformed.
        batch_size: Clips in a batch.
        num_workers: Processes that read clips; 0 reads in the training process.
        on_error: What happens to a clip that cannot be read, as in `VideoDataModule`.
        class_balance: How far training evens out classes, as in `VideoDataModule`.
        classes: The names of those classes of the family that there are; all if not given.
    """

    def __init__(
        self,
        root: str = "data/synthgym",
        family: Literal["somersault", "order"] = "somersault",
        level: float = 0.3,
        mirror: float = 0.0,
        num_train: int = 1440,
        num_val: int = 90,
        num_test: int = 270,
        data_seed: int = 0,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008, it is frozen
        batch_size: int = 16,
        num_workers: int = 2,
        on_error: OnError = "raise",
        class_balance: float = 0.0,
        classes: list[str] | None = None,
    ) -> None:
        super().__init__(
            root=f"{root}/videos",
            train=f"{root}/train.csv",
            val=f"{root}/val.csv" if num_val else None,
            test=f"{root}/test.csv" if num_test else None,
            preprocessing=preprocessing,
            batch_size=batch_size,
            num_workers=num_workers,
            on_error=on_error,
            class_balance=class_balance,
            format="reference",
        )
        self.folder = root
        self.splits = {"train": num_train, "val": num_val, "test": num_test}
        self.family = family
        self.level = level
        self.mirror = mirror
        self.data_seed = data_seed
        self.chosen = classes

    @property
    def class_names(self) -> list[str]:
        return self.chosen or synthetic.class_names(self.family)

    def prepare_data(self) -> None:
        synthetic.write_dataset(
            self.folder,
            splits=self.splits,
            family=self.family,
            level=self.level,
            mirror=self.mirror,
            seed=self.data_seed,
            classes=self.chosen,
        )
