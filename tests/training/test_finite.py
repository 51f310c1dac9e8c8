"""Non-finite predictions are refused by the names of their clips."""

from pathlib import Path

import numpy as np
import pytest

from taghead.data import Clip
from taghead.errors import DataError
from taghead.metrics import Predictions
from taghead.training.finite import check_predictions_finite


def test_predictions_that_are_not_finite_are_named() -> None:
    probabilities = np.full((8, 2), 0.5)
    right = Predictions(np.arange(8), np.zeros(8, int), probabilities)
    check_predictions_finite(right, None)
    for value, rows in ((np.nan, [3]), (np.inf, [0, 7]), (-np.inf, list(range(8)))):
        wrong = probabilities.copy()
        wrong[rows, 1] = value
        clips = [Clip(Path(f"{i}.mp4"), 0, "a") for i in range(8)]
        names = ", ".join(f"{row}.mp4" for row in rows[:5])
        told = rf"^the model's logits are not finite on {len(rows)} of 8 clips: {names}"
        with pytest.raises(DataError, match=told):
            check_predictions_finite(right._replace(probabilities=wrong), clips)
