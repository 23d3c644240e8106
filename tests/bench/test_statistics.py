"""Paired statistics against scipy and against values that can be worked out by hand."""

import numpy as np
import pytest

from derainzoo.bench.statistics import compare, sign_test
from derainzoo.errors import DerainzooError


def test_known_values_of_the_sign_test():
    assert sign_test(9, 1) == pytest.approx(2 * 11 / 1024)  # C(10,0) + C(10,1) of 2^10, twice
    assert sign_test(5, 5) == 1.0
    assert sign_test(0, 0) == 1.0
    assert sign_test(0, 6) == sign_test(6, 0) == pytest.approx(2 / 64)


@pytest.mark.parametrize(("wins", "losses"), [(3, 8), (60, 40), (700, 641), (1, 0)])
def test_sign_test_agrees_with_scipy(wins, losses):
    stats = pytest.importorskip("scipy.stats")
    assert sign_test(wins, losses) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue, rel=1e-9)


def test_interval_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    a, b = rng.normal(30, 3, 80), rng.normal(29.5, 3, 80)
    found = compare(a, b, resamples=20_000)
    expected = stats.bootstrap((a - b,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found.mean == pytest.approx(np.mean(a - b))
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.03 * width)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.03 * width)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.5, 1.0, (300, 60))
    covered = [c.low <= 0.5 <= c.high for c in (compare(d, np.zeros(60), resamples=400) for d in differences)]
    assert 0.90 <= np.mean(covered) <= 0.985


def test_pictures_of_one_scene_are_one_witness():
    """Three copies of every value tell no more than one of them."""
    rng = np.random.default_rng(5)
    once = rng.normal(0.3, 1, 30)
    thrice, scenes = np.repeat(once, 3), np.repeat([str(i) for i in range(30)], 3)
    alone = compare(once, np.zeros(30))
    grouped = compare(thrice, np.zeros(90), list(scenes))
    naive = compare(thrice, np.zeros(90))
    assert (grouped.images, grouped.scenes, grouped.p_value) == (90, 30, alone.p_value)
    assert grouped.mean == pytest.approx(alone.mean)
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.08)
    assert naive.high - naive.low < 0.7 * (alone.high - alone.low)


def test_infinite_values_are_left_out_and_counted():
    found = compare([30.0, float("inf"), 31.0, float("nan")], [29.0, float("inf"), 31.0, 20.0])
    assert (found.images, found.left_out, found.mean) == (2, 2, 0.5)
    assert (found.wins, found.losses, found.ties) == (1, 0, 1)


def test_order_of_the_two_changes_the_sign_alone():
    rng = np.random.default_rng(1)
    a, b = rng.random(20), rng.random(20)
    one, two = compare(a, b), compare(b, a)
    assert (one.mean, one.low, one.wins) == pytest.approx((-two.mean, -two.high, two.losses))


def test_values_that_cannot_be_paired():
    with pytest.raises(DerainzooError, match="found 2 and 3"):
        compare([1, 2], [1, 2, 3])
    with pytest.raises(DerainzooError, match="no picture"):
        compare([float("inf")], [1.0])
