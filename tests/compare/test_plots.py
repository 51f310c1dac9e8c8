from itertools import combinations

import numpy as np
from matplotlib.figure import Figure

from taghead.compare.plots import label_points, pareto_front


def test_labels_do_not_overlap() -> None:
    axes = Figure(figsize=(8, 5)).subplots()
    points = np.array([[x, y] for x in (1.0, 1.02, 1.04) for y in (5.0, 5.1)] + [[2.0, 6.0]])
    axes.plot(*points.T, "o")
    label_points(axes, points, {i: f"configuration {i}" for i in range(6)}, points)
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == 6
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_the_front_has_what_nothing_cheaper_beats() -> None:
    cost = np.array([3.0, 1.0, 2.0, 2.0, 4.0, 1.0])
    value = np.array([0.7, 0.5, 0.6, 0.8, 0.9, 0.4])
    assert pareto_front(cost, value).tolist() == [1, 3, 4]
