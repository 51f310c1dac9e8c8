import numpy as np
import pytest
from scipy import stats

from taghead.compare.statistics import (
    hierarchical_bootstrap,
    holm,
    paired_difference,
    visible_difference,
)

NUM_SEEDS, NUM_CLIPS = 5, 200
GROUPS = np.repeat(np.arange(50), 4)
CLASSES = np.arange(NUM_CLIPS) % 6
# standard deviations over seeds, clips, both, and clusters of clips
SPREADS = {
    "seeds": (0.8, 0.0, 0.2, 0.0),
    "clips": (0.05, 1.0, 0.5, 0.0),
    "rest": (0.05, 0.05, 1.0, 0.0),
    "mixed": (0.2, 0.5, 1.0, 0.0),
    "clusters": (0.1, 0.3, 0.5, 1.0),
}


def difference(random: np.random.Generator, spread: str, shift: float) -> np.ndarray:
    """What a configuration has right less its control, on clips that are hard or easy for both."""
    seeds, clips, rest, clusters = SPREADS[spread]
    easy = 1 + random.normal(0, 2, NUM_CLIPS)
    sides = []
    for own in (shift, 0.0):
        of_seed = random.normal(0, seeds, (NUM_SEEDS, 1))
        of_clip = random.normal(0, clips, NUM_CLIPS) + random.normal(0, clusters, 50)[GROUPS]
        of_both = random.normal(0, rest, (NUM_SEEDS, NUM_CLIPS))
        sides.append((easy + own + of_seed + of_clip + of_both > 0).astype(float))
    return sides[0] - sides[1]


def truth(spread: str, shift: float) -> float:
    width = np.sqrt(4 + np.square(SPREADS[spread]).sum())
    return float(stats.norm.cdf((1 + shift) / width) - stats.norm.cdf(1 / width))


@pytest.mark.parametrize("spread", SPREADS)
def test_intervals_of_five_seeds_hold_the_truth(spread: str) -> None:
    random, hits, num_sweeps = np.random.default_rng(3), np.zeros(3), 400
    clusters = GROUPS if spread == "clusters" else None
    for number in range(num_sweeps):
        shift = 0.5 * (number % 2)
        values, true = difference(random, spread, shift), truth(spread, shift)
        for place, classes in enumerate([None, CLASSES]):
            found = paired_difference(values, classes, clusters)
            hits[place] += found.low <= true <= found.high
        single = paired_difference(values)
        hits[2] += single.low <= true <= single.high
    assert (hits[:2] >= 0.93 * num_sweeps).all()
    # clips that depend on each other and are taken for single ones: the test would see it
    assert (hits[2] < 0.88 * num_sweeps) == (spread == "clusters")


def test_the_bootstrap_alone_is_too_sure_where_seeds_differ() -> None:
    random, num_sweeps = np.random.default_rng(0), 200
    drawn = [difference(random, "seeds", 0.0) for _ in range(num_sweeps)]
    intervals = hierarchical_bootstrap(drawn, num_draws=500)
    hits = sum(found.low <= 0 <= found.high for found in intervals)
    assert 0.7 * num_sweeps < hits < 0.9 * num_sweeps


def test_no_difference_raises_false_alarms_at_the_stated_rate() -> None:
    random, num_sweeps, alarms, single = np.random.default_rng(0), 200, 0, 0
    for _ in range(num_sweeps):
        easy = random.normal(1, 2, NUM_CLIPS)
        # a control and five configurations like it: [6, S, C]
        ability = random.normal(0, 0.2, (6, NUM_SEEDS, 1)) + random.normal(
            0, 0.5, (6, 1, NUM_CLIPS)
        )
        right = (easy + ability + random.normal(0, 1, (6, NUM_SEEDS, NUM_CLIPS)) > 0).astype(float)
        p_values = [paired_difference(own - right[0]).p for own in right[1:]]
        if min(p_values) <= 0.05:  # else Holm finds nothing
            single += 1
            alarms += (holm(p_values) <= 0.05).any()
    assert alarms <= 0.08 * num_sweeps
    assert single > 0.1 * num_sweeps  # without the correction


def test_the_interval_is_the_two_way_analysis_of_variance() -> None:
    values = difference(np.random.default_rng(5), "mixed", 0.5)
    mean, rows, columns = values.mean(), values.mean(axis=1), values.mean(axis=0)
    ms_seeds = NUM_CLIPS * ((rows - mean) ** 2).sum() / (NUM_SEEDS - 1)
    ms_clips = NUM_SEEDS * ((columns - mean) ** 2).sum() / (NUM_CLIPS - 1)
    rest = sum(
        (values[s, c] - rows[s] - columns[c] + mean) ** 2
        for s in range(NUM_SEEDS)
        for c in range(NUM_CLIPS)
    )
    ms_rest = rest / ((NUM_SEEDS - 1) * (NUM_CLIPS - 1))
    whole = ms_seeds + max(ms_clips - ms_rest, 0)
    freedom = (NUM_SEEDS - 1) * whole**2 / ms_seeds**2
    error = np.sqrt(whole / values.size)
    found = paired_difference(values)
    reach = stats.t.ppf(0.975, freedom) * error
    expected = (mean, mean - reach, mean + reach, 2 * stats.t.sf(mean / error, freedom))
    np.testing.assert_allclose(found[:4], expected, rtol=1e-10)
    np.testing.assert_allclose((found.error, found.freedom), (error, freedom), rtol=1e-10)


def test_pairing_by_clip_and_by_seed_matters() -> None:
    random = np.random.default_rng(0)
    easy, lucky = random.normal(0, 2, NUM_CLIPS), random.normal(0, 1, (NUM_SEEDS, 1))
    control, other = (
        (easy + lucky + random.normal(own, 0.3, (NUM_SEEDS, NUM_CLIPS)) > 0).astype(float)
        for own in (0.0, 0.3)
    )
    paired = paired_difference(other - control)
    by_clip = paired_difference(other - control[:, random.permutation(NUM_CLIPS)])
    by_seed = paired_difference(other - control[[1, 2, 3, 4, 0]])
    assert paired.mean == pytest.approx(by_clip.mean) == pytest.approx(by_seed.mean)
    assert paired.low > 0
    assert by_clip.error > 1.5 * paired.error
    assert by_seed.error > 1.5 * paired.error


def test_weights_of_classes_and_clusters() -> None:
    values = np.array([[1.0, 1, 1, 0], [1, 1, -1, 0]])
    classes = np.array([0, 0, 0, 7])  # means 1 and 1/3, and 0
    assert paired_difference(values, classes).mean == pytest.approx(1 / 3)
    assert paired_difference(values).mean == pytest.approx(0.5)
    alone, own = np.arange(4), paired_difference(values)
    np.testing.assert_allclose(paired_difference(values, clusters=alone), own)
    # two clusters that are copies of each other have no variance but the seeds'
    twice = np.array([[1.0, 0, 1, 0], [0, 0, 0, 0]])
    found = paired_difference(twice, clusters=np.array([0, 0, 1, 1]))
    assert (found.mean, found.error) == pytest.approx((0.25, 0.25))
    drawn = hierarchical_bootstrap([values], np.zeros(4, int), num_draws=400)[0]
    assert (drawn.low, drawn.high) == pytest.approx((0.25, 0.75))  # only the seeds vary


def test_the_bootstrap_draws_clips_once_for_all() -> None:
    random = np.random.default_rng(0)
    values = [difference(random, "mixed", shift) for shift in (0.0, 1.0)] + [
        np.zeros((3, NUM_CLIPS))
    ]
    first, second, nothing = hierarchical_bootstrap(values, num_draws=2000)
    assert first.low < 0 < first.high
    assert 0 < second.low < values[1].mean() < second.high
    assert second.p < 0.05 < first.p
    assert nothing == (0, 0, 1)
    assert (
        hierarchical_bootstrap([values[0]], num_draws=2000)[0]
        == hierarchical_bootstrap([values[0]] * 2, num_draws=2000)[1]
    )
    with pytest.raises(ValueError, match=r"num_draws must be a positive integer \(got 0\)"):
        hierarchical_bootstrap(values, num_draws=0)


def test_what_cannot_be_told_is_not_told() -> None:
    one_seed = paired_difference(np.ones((1, 4)))
    assert one_seed.mean == 1
    assert np.isnan(one_seed[1:]).all()
    assert paired_difference(np.zeros((5, 9)))[:4] == (0, 0, 0, 1)
    # every seed the same: only the clips vary
    same = np.tile([1.0, 0, 0, 0, 1, 0, 1, 0], (5, 1))
    found = paired_difference(same)
    assert found.error == pytest.approx(same[0].std(ddof=1) / np.sqrt(8))
    assert found.freedom == np.inf


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04, times 4 3 2 1, then never falling; NaN is no test
    adjusted = holm([0.04, 0.01, float("nan"), 0.03, 0.02])
    np.testing.assert_allclose(adjusted, [0.06, 0.04, np.nan, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.001, 0.9]), [1.0, 0.003, 1.0])
    assert holm([]).size == 0


def test_a_visible_difference_is_found_in_four_of_five_sweeps() -> None:
    estimate = paired_difference(difference(np.random.default_rng(0), "mixed", 0.0))
    shift = visible_difference(estimate, num_tests=4)
    random = np.random.default_rng(1)
    # estimates around the shift, with errors as uncertain as the degrees of freedom say
    drawn = shift + estimate.error * random.normal(size=20_000)
    errors = estimate.error * np.sqrt(random.chisquare(estimate.freedom, 20_000) / estimate.freedom)
    found = 2 * stats.t.sf(drawn / errors, estimate.freedom) <= 0.05 / 4
    assert found.mean() == pytest.approx(0.8, abs=0.06)
