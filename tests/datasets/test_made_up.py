"""Made-up prices: labelled, repeatable, sound as prices, and without a pattern."""

import numpy as np
import pandas as pd
import pytest

import jaxsim as js

KINDS = ("stock and bond", "leaver", "minutes")


@pytest.mark.parametrize("kind", KINDS)
def test_panels_are_sound(kind):
    one, same, other = (js.datasets.made_up(kind, seed) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(one.close, same.close, check_exact=True)
    assert not one.close.equals(other.close)
    frames = (one.open, one.high, one.low, one.close, one.volume)
    assert all(frame.columns.name == "made up" for frame in frames), "every table says that they are made up"
    has_price = one.close.notna()
    assert all((frame.notna() == has_price).to_numpy().all() for frame in frames)
    lowest, highest = np.minimum(one.open, one.close), np.maximum(one.open, one.close)
    assert ((one.low <= lowest) & (one.high >= highest) | ~has_price).to_numpy().all()
    assert ((one.low > 0) | ~has_price).to_numpy().all()
    assert one.close.index.is_monotonic_increasing and one.close.index.is_unique
    assert (one.close.index.day_of_week < 5).all()


def test_returns_are_those_of_a_market_without_a_pattern():
    """Over 40 seeds: yearly volatility, fat tails, volatility in clusters, and no memory of direction."""
    returns = [np.log(js.datasets.made_up("stock and bond", seed).close).diff().iloc[1:] for seed in range(40)]
    volatility = np.mean([r.std() * np.sqrt(252) for r in returns], axis=0)
    np.testing.assert_allclose(volatility, [0.17, 0.06], rtol=0.03)
    assert np.mean([r.kurt().mean() for r in returns]) > 0.5
    assert np.mean([r["STOCK"].abs().autocorr(5) for r in returns]) > 0.05
    assert abs(np.mean([r["STOCK"].autocorr(1) for r in returns])) < 0.01
    assert abs(np.mean([r.corr().iloc[0, 1] for r in returns]) + 0.2) < 0.02


def test_the_leaver_leaves():
    for seed in range(5):
        close = js.datasets.made_up("leaver", seed).close
        assert close[list("ABCD")].notna().to_numpy().all()
        last = close["E"].last_valid_index()
        assert last.year == 2019 and close["E"].loc[:last].notna().all()
        assert close["E"].loc[last] < 0.6 * close["E"].loc[:last].iloc[-120]


def test_minutes_are_those_of_an_exchange():
    index = js.datasets.made_up("minutes").close.index
    assert str(index.tz) == "America/New_York" and (index.tz_localize(None).normalize().value_counts() == 390).all()
    assert {(t.hour, t.minute) for t in index[[0, 389]]} == {(9, 30), (15, 59)}


def test_misuse():
    with pytest.raises(ValueError, match=r"^kind: expected 'stock and bond', 'leaver', 'minutes', got 'bonds'"):
        js.datasets.made_up("bonds")
    for seed in (-1, 0.5, "a", True):
        with pytest.raises(ValueError, match=r"^seed: expected a whole number >= 0"):
            js.datasets.made_up("leaver", seed)
