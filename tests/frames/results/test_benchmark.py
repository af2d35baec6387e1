"""What a run is compared with, and arguments of methods by label. Expected numbers are worked out by hand: A goes 100,
110, 121, 121, 133.1, B 50, 50, 50, 55, 55, and the index 10, 11, 11, 12.1, 12.1."""

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js

INDEX = pd.date_range("2024-01-01", periods=5, freq="D", name="time")
CLOSE = pd.DataFrame({"A": [100, 110, 121, 121, 133.1], "B": [50.0, 50, 50, 55, 55]}, INDEX)
SP = pd.Series([10, 11, 11, 12.1, 12.1], INDEX)
RUN = dict(open=CLOSE, freq="1D", year_freq="252D")
GROUPS = dict(groups={"A": "a", "B": "b"})
ENGINES = pytest.mark.parametrize("engine", ["reference", "compiled"])


def longer(prices):
    """With bars before, between and after, in any order."""
    more = pd.Series(1000.0, pd.DatetimeIndex(["2023-12-01", "2024-01-02 12:00", "2025-01-01"]))
    return pd.concat([prices, more]).iloc[::-1]


@ENGINES
@pytest.mark.parametrize(
    ("benchmark", "start", "total"),
    [
        (None, 0, (1.331 + 1.1) / 2 - 1),
        ("equal", 0, (1.331 + 1.1) / 2 - 1),
        ("A", 0, 0.331),
        (SP, 0, 0.21),
        (longer(SP), 0, 0.21),
        (SP.to_frame("index"), 0, 0.21),
        (SP, 2, 0.1),  # bought at the close of bar 1
        ("B", 4, 0.0),
    ],
)
def test_a_run_is_compared_with_prices(engine, benchmark, start, total):
    bt = js.backtest(CLOSE, al.EqualWeight(), benchmark=benchmark, start=start, engine=engine, **RUN)
    np.testing.assert_allclose(bt.stats()["Benchmark Return [%]"], 100 * total, atol=1e-12)
    np.testing.assert_allclose(bt.benchmark_value.iloc[-1], 100 * (1 + total))
    theirs = bt.benchmark_value.pct_change().fillna(0)[start:]
    expected = js.metrics.capture(bt.returns[start:].to_numpy(), theirs.to_numpy(), ann_factor=252)
    np.testing.assert_allclose(bt.capture(), expected, rtol=1e-9)


NAMES = ["beta", "alpha", "information_ratio"]


@ENGINES
def test_every_verb_takes_it(engine):
    size = pd.DataFrame({"A": [1.0] + 4 * [np.nan], "B": 5 * [np.nan]}, INDEX)
    kwargs = dict(benchmark=SP, **RUN)
    bt = js.backtest(CLOSE, al.EqualWeight(), engine=engine, **kwargs)
    moves = SP.pct_change().fillna(0).to_numpy()
    np.testing.assert_allclose(bt.beta(), js.metrics.beta(bt.returns.to_numpy(), moves), rtol=1e-12)
    table = js.sweep(CLOSE, al.EqualWeight(), metrics=NAMES, engine=engine, **kwargs)
    np.testing.assert_allclose(table[NAMES].iloc[0], [getattr(bt, name)() for name in NAMES], rtol=1e-9)
    again = js.replay(bt.allocations, CLOSE, engine=engine, **kwargs)
    records = js.from_records(bt.orders, CLOSE, benchmark=SP, freq="1D", year_freq="252D")
    for other in (again, records):
        np.testing.assert_allclose(other.beta(), bt.beta(), rtol=1e-9)
    ordered = js.backtest(CLOSE, size=size, engine=engine, **kwargs)
    np.testing.assert_allclose(ordered.beta(), js.metrics.beta(ordered.returns.to_numpy(), moves), rtol=1e-12)


@ENGINES
def test_a_frame_is_by_group_and_a_name_is_the_groups_own_column(engine):
    frame = pd.DataFrame({"b": SP, "a": CLOSE["B"]})
    bt = js.backtest(CLOSE, al.EqualWeight(), benchmark=frame, engine=engine, **GROUPS, **RUN)
    np.testing.assert_allclose(bt.benchmark_value.iloc[-1], [110, 121])
    np.testing.assert_allclose(bt["b"].benchmark_value.iloc[-1], 121)
    fees = js.grid(fees=[0.0, 0.01])
    swept = js.sweep(CLOSE, al.EqualWeight(), benchmark=frame, fees=fees, metrics=NAMES, engine=engine, **GROUPS, **RUN)
    lanes = js.backtest(CLOSE, al.EqualWeight(), benchmark=frame, fees=fees, engine=engine, **GROUPS, **RUN)
    for name in NAMES:
        np.testing.assert_allclose(swept[name], getattr(lanes, name)(), rtol=1e-9, err_msg=name)
    one = js.backtest(CLOSE, al.EqualWeight(), benchmark="A", engine=engine, **GROUPS, **RUN)
    np.testing.assert_allclose(one.benchmark_value.iloc[-1], [133.1, 133.1])
    columns = pd.MultiIndex.from_tuples([("x", "A"), ("x", "B"), ("y", "A")], names=["set", "asset"])
    several = pd.concat([CLOSE["A"], CLOSE["B"], SP], axis=1).set_axis(columns, axis=1)
    own = js.backtest(several, al.EqualWeight(), benchmark="A", engine=engine, freq="1D")
    np.testing.assert_allclose(own.benchmark_value.iloc[-1], [133.1, 121])


BAD = {
    "benchmark: it has no entry for 2024-01-03 00:00:00": SP.drop(INDEX[2]),
    "benchmark: it has no entry for 2024-01-01": SP.tz_localize("UTC"),
    "benchmark: it has 2024-01-01 00:00:00 twice": pd.concat([SP, SP.iloc[:1]]),
    "benchmark: expected prices > 0, got -0.1; of returns r pass": SP - 10.1,
    "benchmark: expected prices (a Series), the name of a column or 'equal', got 'C'": "C",
    "benchmark: expected prices (a Series), the name of a column or 'equal', got 3": 3,
    "benchmark: expected one price for each of 5 bars": np.ones(4),
    "benchmark: expected prices, which are numbers": pd.Series(list("abcde"), INDEX),
    "benchmark: a frame is by group": pd.DataFrame({"x": SP, "y": SP}),
    "benchmark: it has no price at any bar": SP * np.nan,
}


@pytest.mark.parametrize("message", BAD)
def test_misused_prices(message):
    with pytest.raises((TypeError, ValueError)) as caught:
        js.backtest(CLOSE, al.EqualWeight(), benchmark=BAD[message], **RUN)
    assert str(caught.value).startswith(message)


def test_misused_prices_of_groups():
    with pytest.raises(ValueError, match="benchmark: there is no column for the group 'b', only 'a'"):
        js.backtest(CLOSE, al.EqualWeight(), benchmark=SP.to_frame("a"), **GROUPS, **RUN)
    columns = pd.MultiIndex.from_tuples([("x", "A"), ("y", "A"), ("z", "B")], names=["set", "asset"])
    three = pd.concat([SP, SP, SP], axis=1).set_axis(columns, axis=1)
    with pytest.raises(ValueError, match="benchmark: the group 'z' has no column 'A'"):
        js.backtest(three, al.EqualWeight(), benchmark="A", freq="1D")


# --- arguments of methods


@pytest.fixture(scope="module")
def lanes() -> js.Backtest:
    return js.backtest(CLOSE, al.EqualWeight(), fees=js.grid(fees=[0.0, 0.01]), engine="reference", **RUN)


MOVES = SP.pct_change().fillna(0)


def test_returns_are_aligned_by_label(lanes):
    one = lanes[0.0]
    expected = js.metrics.beta(one.returns.to_numpy(), MOVES.to_numpy())
    after = pd.Series(0.5, [pd.Timestamp("2025-01-01")])
    for moves in (MOVES, MOVES[::-1], pd.concat([after, MOVES]), MOVES.to_numpy(), MOVES.to_frame("any")):
        np.testing.assert_allclose(one.beta(benchmark=moves), expected, rtol=1e-12)
    by_lane = pd.DataFrame({0.01: -MOVES, 0.0: MOVES})
    turned = js.metrics.beta(lanes.returns[0.01].to_numpy(), -MOVES.to_numpy())
    np.testing.assert_allclose(lanes.beta(benchmark=by_lane[::-1]), [expected, turned], rtol=1e-12)
    np.testing.assert_allclose(
        lanes.rolling_beta(benchmark=MOVES[::-1], window=3), lanes.rolling_beta(benchmark=MOVES, window=3)
    )


def test_settings_are_aligned_by_label(lanes):
    by_lane = pd.Series({0.01: 0.002, 0.0: 0.001})
    each = [lanes[0.0].omega_ratio(required_return=0.001), lanes[0.01].omega_ratio(required_return=0.002)]
    np.testing.assert_allclose(lanes.omega_ratio(required_return=by_lane), each, rtol=1e-12)
    with pytest.raises(ValueError, match=r"required_return: it has no entry for the lane 0.01"):
        lanes.omega_ratio(required_return=by_lane[[0.0]])
    with pytest.raises(ValueError, match=r"required_return: it has an entry for 0.5, which is no lane"):
        lanes.omega_ratio(required_return=pd.Series({0.5: 0.0, 0.01: 0.0, 0.0: 0.0}))


WRONG = {
    "benchmark: it has no entry for 2024-01-03": MOVES.drop(INDEX[2]),
    "benchmark: it has no entry for 2024-01-01": MOVES.reset_index(drop=True),
    "benchmark: it has an entry for 2024-01-02 12:00:00, which is no bar of the run": longer(MOVES),
    "benchmark: expected simple returns, but all are above 0 and their mean is 11.24; of prices pass": SP,
    "benchmark: expected returns, got 'A'; a name goes to js.backtest": "A",
    "benchmark: it has no entry for the lane 0.01": MOVES.to_frame(0.0),
    "benchmark: it has an entry for 5.0, which is no lane of the run": pd.DataFrame(
        {0.0: MOVES, 0.01: MOVES, 5: MOVES}
    ),
    "benchmark: expected returns [time] or [time, lane]": MOVES.to_numpy()[1:],
}


@pytest.mark.parametrize("message", WRONG)
def test_misused_returns(lanes, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        lanes.beta(benchmark=WRONG[message])
    assert str(caught.value).startswith(message)


def test_pure_metrics_refuse_other_labels():
    returns = MOVES * 0.5
    js.metrics.beta(returns, MOVES)
    with pytest.raises(ValueError, match="benchmark: it has 2024-01-05 00:00:00 where returns has another label"):
        js.metrics.beta(returns, MOVES[::-1])


def test_masks_and_features_are_aligned_by_label():
    weights = pd.DataFrame({"A": [0.5, 0.2], "B": [0.5, 0.8]}, INDEX[[1, 3]])
    plan = js.Allocations.from_weights(weights, INDEX)
    mask = pd.Series([True, False], INDEX[[3, 1]])
    assert plan.filter(mask).records["alloc_idx"].tolist() == [3]
    with pytest.raises(ValueError, match="keep: it has an entry for no allocation, Timestamp"):
        plan.filter(pd.Series(True, INDEX))
    seen = []

    def allocator(obs):
        seen.append(np.asarray(obs.features))
        return np.array([0.5, 0.5])

    features = pd.DataFrame({"B": 2.0, "A": 1.0}, INDEX)
    js.backtest(CLOSE, allocator, features=features, engine="reference", **RUN)
    np.testing.assert_array_equal(seen[0], [1, 2])
    with pytest.raises(ValueError, match="open: its time index is not that of close; it lacks 2024-01-05"):
        js.backtest(CLOSE, al.EqualWeight(), open=CLOSE[:-1])


def test_pictures_show_the_benchmark_that_the_run_was_given(lanes):
    pytest.importorskip("plotly")
    bt = js.backtest(CLOSE, al.EqualWeight(), benchmark=SP, engine="reference", **RUN)
    for run, rows in ((bt, slice(None)), (bt.between(INDEX[2]), slice(2, None))):
        (line,) = (x for x in run.plot_value().data if x.name == "benchmark")
        np.testing.assert_allclose(line.y, bt.benchmark_value.iloc[rows])
    assert "benchmark" not in [x.name for x in lanes.plot_value().data]
    with pytest.raises(TypeError, match="benchmark: not in walk_forward"):
        js.walk_forward(CLOSE, lambda market: al.EqualWeight(), js.WalkForwardSplits(2, 2), benchmark=SP)


def test_prices_are_no_returns_elsewhere():
    market = js.Market.from_frames(CLOSE, dtype=np.float32)
    with pytest.raises(ValueError, match=r"benchmark: .* of prices pass js.metrics.returns_from_value"):
        js.score(market, js.Policy(al.EqualWeight()), ["beta"], benchmark=SP.to_numpy())
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="X: expected simple returns"):
        js.PortfolioEstimator(js.Policy(al.EqualWeight()), steps=0).fit(CLOSE)
