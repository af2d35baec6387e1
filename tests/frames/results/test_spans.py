"""Paths by bar from what was so after each event: the slow way, bar by bar, is the judge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsim.frames.results import ledger
from jaxsim.frames.results.ledger import Spans


def bar_by_bar(num_bars, lanes, opening, after):
    """lanes: the bars of the events of each lane."""
    path, event = np.empty((len(lanes), num_bars)), 0
    for lane, bars in enumerate(lanes):
        path[lane] = opening[lane]
        for bar in bars:
            path[lane, bar:] = after[event]
            event += 1
    return path


@st.composite
def histories(draw):
    num_bars = draw(st.integers(1, 12))
    bars = st.sets(st.integers(0, num_bars - 1)).map(sorted)
    return num_bars, draw(st.lists(bars, min_size=1, max_size=6))


@settings(max_examples=200)
@given(histories(), st.sampled_from([1, 7, 24, 1 << 16]), st.integers(0, 2**32 - 1))
def test_paths_are_those_of_a_loop_over_bars(history, block, seed):
    num_bars, lanes = history
    rng = np.random.default_rng(seed)
    counts, bars = np.array([len(x) for x in lanes]), np.array([bar for x in lanes for bar in x], np.int64)
    opening, after = rng.normal(size=len(lanes)), rng.normal(size=len(bars))
    between = Spans.between(counts, bars, num_bars)
    states = between.states(opening, after)
    want = bar_by_bar(num_bars, lanes, opening, after)
    np.testing.assert_array_equal(between.path(states), want)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "BLOCK", block)
        parts = [between.path(states, some) for some in between.blocks()]
    assert max(len(part) for part in parts) <= max(1, block // num_bars)
    np.testing.assert_array_equal(np.concatenate(parts), want)
