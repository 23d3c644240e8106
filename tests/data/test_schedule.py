"""What a step trains on does not depend on processes, workers or interruptions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derainzoo.data.schedule import ShareSampler, StepSampler, make_stages
from derainzoo.errors import DerainzooError

STAGES = [{"start": 0, "patch": 8, "batch": 4}, {"start": 3, "patch": 16, "batch": 2}]


def sampler(count=10, steps=6, **settings):
    return StepSampler(count, make_stages(8, 4, STAGES), steps, seed=1, **settings)


def test_patch_and_batch_follow_the_step():
    batches = list(sampler())
    assert [len(b) for b in batches] == [4, 4, 4, 2, 2, 2]
    assert [b[0].patch for b in batches] == [8, 8, 8, 16, 16, 16]
    assert [d.ordinal for b in batches for d in b] == list(range(18))


def test_every_pass_shows_every_scene_once_in_an_order_of_its_own():
    draws = [d for b in StepSampler(10, make_stages(8, 5, None), 6, seed=1) for d in b]
    passes = [[d.scene for d in draws[i : i + 10]] for i in (0, 10, 20)]
    assert all(sorted(p) == list(range(10)) for p in passes)
    assert passes[0] != passes[1] != passes[2]
    assert draws != [d for b in StepSampler(10, make_stages(8, 5, None), 6, seed=2) for d in b]


@given(start=st.integers(0, 6))
def test_a_resumed_run_draws_what_was_left(start):
    assert list(sampler(start=start)) == list(sampler())[start:]


@pytest.mark.parametrize(("world", "accumulate"), [(1, 2), (2, 1)])
def test_processes_and_micro_batches_share_a_step(world, accumulate):
    whole = [sorted(b) for b in sampler()]
    parts = [list(sampler(rank=r, world=world, accumulate=accumulate)) for r in range(world)]
    for step in range(6):
        mine = [d for p in parts for micro in p[step * accumulate : (step + 1) * accumulate] for d in micro]
        assert sorted(mine) == whole[step]
    assert len(sampler(world=world, accumulate=accumulate)) == 6 * accumulate


@pytest.mark.parametrize(("count", "world"), [(10, 3), (2, 4), (0, 2)])
def test_whole_images_are_dealt_out_once(count, world):
    shares = [list(ShareSampler(count, r, world)) for r in range(world)]
    assert sorted(i for s in shares for i in s) == list(range(count))


def test_mistakes_are_answered():
    with pytest.raises(DerainzooError, match="must start at step 0 and go up"):
        make_stages(8, 4, [{"start": 5, "patch": 8, "batch": 4}])
    with pytest.raises(DerainzooError, match="a batch of 2 cannot be divided among 4 processes"):
        sampler(world=4)
    with pytest.raises(DerainzooError, match="nothing to train on"):
        sampler(count=0)
