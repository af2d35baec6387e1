"""Metrics against vectorbt 1.2.0; NumPy against JAX; gradients against finite differences."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxsim import metrics
from tests.helpers.marks import some_slow

ANN_FACTOR = 252.0
BARS = (1, 2, 3, 12, 60)
nan = np.nan

#: What vectorbt calls otherwise.
VECTORBT_NAMES = {
    "total_return": "total",
    "annualized_return": "annualized",
    "rolling_total_return": "rolling_total",
    "rolling_annualized_return": "rolling_annualized",
}
ROLLING = [name for name in metrics.__all__ if name.startswith("rolling_")]
OF_TRADES = {
    "returns_from_value",
    "turnover",
    "turnover_two_way",
    "num_rebalances",
    "total_fees",
    "portfolio_stats",
    "returns_stats",
}
WHOLE = [name for name in metrics.__all__ if not name.startswith("rolling_") and name not in OF_TRADES]

#: They share one implementation; vectorbt compiles each of them anew, some five seconds.
SAMPLE = ["rolling_sharpe_ratio", "rolling_beta"]
COMPARED = [*SAMPLE, "rolling_calmar_ratio", "rolling_max_drawdown"]

#: Settings other than the defaults.
SETTINGS = [
    ("annualized_volatility", dict(levy_alpha=1.7, ddof=0)),
    ("sharpe_ratio", dict(risk_free=0.3, ddof=0)),
    ("sortino_ratio", dict(required_return=0.6)),
    ("omega_ratio", dict(risk_free=0.3, required_return=0.3)),
    ("downside_risk", dict(required_return=0.6)),
    ("information_ratio", dict(ddof=0)),
    ("alpha", dict(risk_free=0.3)),
    ("value_at_risk", dict(cutoff=0.2)),
    ("cond_value_at_risk", dict(cutoff=0.2)),
    ("martin_ratio", dict(risk_free=0.07)),
    ("deflated_sharpe_ratio", dict(var_sharpe=0.01, nb_trials=10, risk_free=0.3)),
]

#: The ratios of vectorbt that divide by a risk of exactly zero only; and those of its metrics that mean something else
#: here (see `tests.peers.differences`).
RATIOS = {"sharpe_ratio", "sortino_ratio", "omega_ratio", "information_ratio", "calmar_ratio", "martin_ratio"}
RATIOS |= {"tail_ratio", "common_sense_ratio", "capture", "skew", "kurtosis", "deflated_sharpe_ratio"}
OF_OUR_OWN = {"up_capture", "down_capture", "log_growth", "expected_shortfall", "smooth_drawdown"}


def as_vectorbt_takes_them(name: str, settings: dict) -> dict:
    """Rates for one bar, where vectorbt takes them so: all but the required return of its omega ratio."""
    per_bar = {"risk_free"} | ({"required_return"} if name != "omega_ratio" else set())
    return {key: (1 + x) ** (1 / ANN_FACTOR) - 1 if key in per_bar else x for key, x in settings.items()}


def make_paths(bars: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns and benchmark returns [time, case]: random ones and every kind of edge."""
    rng = np.random.default_rng(bars)

    def normal(scale=0.02):
        return np.maximum(rng.normal(0, scale, bars), -0.9)

    def but(x, at, value):
        x = x.copy()
        x[min(at, bars - 1)] = value
        return x

    holes = np.where(rng.random((2, bars)) < 0.3, nan, rng.normal(0, 0.02, (2, bars)))
    returns = {
        **{f"random{i}": normal(0.002 * 4**i) for i in range(5)},
        "holes": holes[0],
        "constant": np.full(bars, 0.01),
        "constant_loss": np.full(bars, -0.1),
        "zeros": np.zeros(bars),
        "gains": np.abs(normal()),
        "losses": -np.abs(normal()),
        "crash": but(normal(), bars // 2, -0.4),
        "crash_at_first": but(normal(), 0, -0.4),
        "near_ruin": but(normal(), bars // 2, -0.7),
        "unknown": np.full(bars, nan),
        "unknown_at_first": but(but(normal(), 0, nan), 1, nan),
        "one_known": but(np.full(bars, nan), bars // 2, 0.1),
        "two_known": but(but(np.full(bars, nan), 0, 0.05), bars - 1, -0.1),
        "tiny": normal(1e-6),
        "large": rng.exponential(1.0, bars) - 0.9,
        "against_zeros": normal(),
        "against_constant": normal(),
        "against_gains": normal(),
        "against_losses": normal(),
        "against_holes": normal(),
        "against_itself": normal(),
    }
    index = pd.date_range("2020-01-01", periods=bars, freq="D")
    returns = pd.DataFrame(returns, index=index)
    benchmark = pd.DataFrame(rng.normal(0, 0.02, returns.shape), index=index, columns=returns.columns)
    benchmark["against_zeros"] = 0.0
    benchmark["against_constant"] = 0.01
    benchmark["against_gains"] = benchmark["against_gains"].abs()
    benchmark["against_losses"] = -benchmark["against_losses"].abs()
    benchmark["against_holes"] = holes[1]
    benchmark["against_itself"] = returns["against_itself"]
    return returns, benchmark


def arguments(name: str, returns, benchmark) -> tuple[tuple, dict]:
    parameters = inspect.signature(getattr(metrics, name)).parameters
    series = (returns, benchmark) if "benchmark" in parameters else (returns,)
    return series, {"ann_factor": ANN_FACTOR} if "ann_factor" in parameters else {}


def score(name: str, returns, benchmark, **settings):
    series, factor = arguments(name, returns, benchmark)
    return getattr(metrics, name)(*series, **factor, **settings)


LEFT_OUT = "ignore:.* trials are left out:UserWarning"
SCIPY_ON_CONSTANTS = "ignore:Precision loss occurred:RuntimeWarning"


@pytest.fixture(scope="module")
def vectorbt_score():
    pytest.importorskip("vectorbt")

    @np.errstate(all="ignore")
    def of(name: str, returns: pd.DataFrame, benchmark: pd.DataFrame, **settings) -> np.ndarray:
        if name in ("skew", "kurtosis"):  # those of pandas, in vectorbt too
            return getattr(returns, name)().to_numpy()
        accessor = returns.vbt.returns(benchmark_rets=benchmark, freq="D", year_freq="252D")
        return getattr(accessor, VECTORBT_NAMES.get(name, name))(**settings).to_numpy()

    return of


def assert_scores(name, ours, theirs, context, rtol=1e-9):
    """Equal to 1e-9, but where a ratio has a denominator of zero: theirs is infinite or NaN, or divides by a risk of
    1e-17 that is rounding."""
    if name.removeprefix("rolling_") in RATIOS:
        left_out = ~np.isfinite(ours) & ~(np.abs(theirs) < 1e12)
        ours = np.where(left_out, theirs, ours)
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-12, err_msg=str(context))


# --- against vectorbt


@pytest.mark.filterwarnings(SCIPY_ON_CONSTANTS)
@pytest.mark.parametrize("name", sorted(set(WHOLE) - OF_OUR_OWN - {"deflated_sharpe_ratio"}))
def test_as_vectorbt(name, vectorbt_score):
    for bars in BARS:
        returns, benchmark = make_paths(bars)
        assert_scores(name, score(name, returns, benchmark), vectorbt_score(name, returns, benchmark), bars)


@pytest.mark.filterwarnings(SCIPY_ON_CONSTANTS)
@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_settings_as_vectorbt(name, settings, vectorbt_score):
    for bars in BARS:
        returns, benchmark = make_paths(bars)
        if name == "alpha" and bars == 2:  # a mean below -100 % a bar has no power; vectorbt's 252nd makes it a gain
            returns, benchmark = returns.drop(columns="large"), benchmark.drop(columns="large")
        theirs = vectorbt_score(name, returns, benchmark, **as_vectorbt_takes_them(name, settings))
        assert_scores(name, score(name, returns, benchmark, **settings), theirs, bars)


def test_deflated_sharpe_over_columns_as_vectorbt(vectorbt_score):
    columns = ["random0", "random1", "random2", "holes"]
    returns, benchmark = (frame[columns] for frame in make_paths(60))
    theirs = vectorbt_score("deflated_sharpe_ratio", returns, benchmark)
    ours = score("deflated_sharpe_ratio", returns, benchmark)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("name", ROLLING)
def test_rolling_is_the_metric_of_each_window(name):
    """And the metrics are vectorbt's; it would compile each rolling one anew, some ten seconds, so only a few are
    compared themselves."""
    returns, benchmark = make_paths(40)
    columns = [*(f"random{i}" for i in range(5)), "holes", "losses", "large"]
    returns, benchmark = returns[columns], benchmark[columns]
    rolled = score(name, returns, benchmark, window=12)
    for end in range(12, 41, 7):
        part = slice(end - 12, end)
        whole = score(name.removeprefix("rolling_"), returns.iloc[part], benchmark.iloc[part])
        known = returns.iloc[part].notna().all().to_numpy() & benchmark.iloc[part].notna().all().to_numpy()
        assert known.sum() >= 6
        np.testing.assert_allclose(np.asarray(rolled)[end - 1, known], np.asarray(whole)[known], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", some_slow(COMPARED, COMPARED[2:]))
def test_rolling_as_vectorbt(name, vectorbt_score):
    # Drawdowns of 1e-7, in the tiny returns, are known to eight digits: they are what is left of 1 - 1.
    rtol = 1e-8 if name in ("rolling_calmar_ratio", "rolling_martin_ratio") else 1e-9
    returns, benchmark = make_paths(60)
    for options in ({}, dict(window=4, minp=2)):
        theirs = vectorbt_score(name, returns, benchmark, **options)
        assert_scores(name, score(name, returns, benchmark, **options), theirs, options, rtol)
    returns, benchmark = returns[:3], benchmark[:3]  # shorter than the window
    for options in ({}, dict(window=5, minp=1)):
        theirs = vectorbt_score(name, returns, benchmark, **options)
        assert_scores(name, score(name, returns, benchmark, **options), theirs, options, rtol)


# --- denominators of zero, rates per year, capture per bar: by hand

RATIO_NAMES = ["sharpe_ratio", "sortino_ratio", "omega_ratio", "calmar_ratio", "martin_ratio", "tail_ratio"]
RATIO_NAMES += ["common_sense_ratio", "information_ratio", "capture", "up_capture", "down_capture", "beta", "alpha"]


@pytest.mark.parametrize("name", RATIO_NAMES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_idle_lane_has_no_ratio(name, dtype):
    """Neither has one whose value rounding alone has moved, here by 31 eps at most."""
    eps = np.finfo(dtype).eps
    noise = np.array([0, -1, 0, 1, 31, 0, -1, 2], dtype)[:, None] * np.array([0, 1], dtype) * dtype(eps)
    assert np.isnan(score(name, noise, np.zeros_like(noise))).all()
    assert np.isnan(jax.jit(lambda r: score(name, r, jnp.zeros_like(r)))(jnp.asarray(noise))).all()


def test_the_sign_of_a_ratio_without_risk():
    up, down, flat = np.full(4, 0.01), np.full(4, -0.01), np.zeros(4)
    for r, sharpe in ((up, np.inf), (down, -np.inf), (flat, nan)):
        np.testing.assert_equal(metrics.sharpe_ratio(r, ann_factor=252), sharpe)
        np.testing.assert_equal(metrics.information_ratio(r, flat), sharpe)
        np.testing.assert_equal(metrics.capture(r, flat, ann_factor=252), sharpe)
    mixed = np.array([0.01, -0.01, 0.02, 0.0])
    np.testing.assert_equal(metrics.information_ratio(mixed, mixed), nan)
    assert metrics.sortino_ratio(up, ann_factor=252) == metrics.omega_ratio(up, ann_factor=252) == np.inf
    assert metrics.sortino_ratio(down, ann_factor=252) == pytest.approx(-np.sqrt(252))
    assert metrics.omega_ratio(down, ann_factor=252) == 0
    assert metrics.tail_ratio([0.0] * 20 + [0.01] * 3) == np.inf
    real = np.array([1e-13, -1e-13, 2e-13])  # above 64 eps, a risk
    assert metrics.sharpe_ratio(real, ann_factor=1) == pytest.approx(real.mean() / real.std(ddof=1))


def test_rates_are_per_year_in_every_metric():
    """Three per cent a year is 1.03**(1 / 252) - 1 a day: a lane that earns it has no excess return."""
    rate = 1.03 ** (1 / 252) - 1
    r = rate + np.array([0.01, -0.01, 0.02, -0.02])
    for name, setting in (("sharpe_ratio", "risk_free"), ("sortino_ratio", "required_return")):
        np.testing.assert_allclose(score(name, r, None, **{setting: 0.03}), 0, atol=1e-12)
    for settings in (dict(risk_free=0.03), dict(required_return=0.03)):
        assert metrics.omega_ratio(r, ann_factor=252, **settings) == pytest.approx(1)
    downside = np.sqrt((0.01**2 + 0.02**2) / 4 * 252)
    assert metrics.downside_risk(r, ann_factor=252, required_return=0.03) == pytest.approx(downside)
    assert metrics.alpha(r, 2 * r - rate, ann_factor=252, risk_free=0.03) == pytest.approx(0, abs=1e-12)
    year = np.r_[np.full(251, 0.1 / 251), -0.05]
    growth = np.prod(1 + year) - 1
    martin = (growth - 0.03) / metrics.ulcer_index(year)
    assert metrics.martin_ratio(year, ann_factor=252, risk_free=0.03) == pytest.approx(martin)
    np.testing.assert_array_equal(
        metrics.rolling_sharpe_ratio(r, ann_factor=252, risk_free=0.03, window=4)[-1],
        metrics.sharpe_ratio(r, ann_factor=252, risk_free=0.03),
    )


def test_lanes_without_a_ratio_are_no_trials():
    rng = np.random.default_rng(3)
    r = rng.normal(0.001, 0.01, (60, 4))
    with_idle = np.c_[r[:, :2], np.zeros(60), r[:, 2:], np.full(60, 0.01)]
    expected = metrics.deflated_sharpe_ratio(r, ann_factor=252)
    with pytest.warns(UserWarning, match=r"^2 of 6 trials are left out") as warned:
        ours = metrics.deflated_sharpe_ratio(with_idle, ann_factor=252)
    assert len(warned) == 1
    np.testing.assert_allclose(ours, [*expected[:2], nan, *expected[2:], nan], rtol=1e-12)
    with jax.enable_x64(True):
        traced = jax.jit(lambda r: metrics.deflated_sharpe_ratio(r, ann_factor=252))(with_idle)
    np.testing.assert_allclose(traced, ours, rtol=1e-9)


def test_capture_is_per_bar():
    """Half cash, half benchmark captures half, whatever the bars; two up bars and one down bar by hand."""
    r, b = np.array([0.02, -0.01, 0.05, nan]), np.array([0.04, -0.02, 0.01, 0.03])
    up = (np.sqrt(1.02 * 1.05) - 1) / (np.sqrt(1.04 * 1.01) - 1)
    assert metrics.up_capture(r, b) == pytest.approx(up, rel=1e-14)
    assert metrics.down_capture(r, b) == pytest.approx(0.5, rel=1e-14)
    rng = np.random.default_rng(0)
    for bars, scale in ((500, 0.01), (8760, 0.005), (200_000, 0.0005)):
        b = rng.normal(0, scale, bars)
        for name in ("up_capture", "down_capture"):
            assert score(name, b / 2, b) == pytest.approx(0.5, abs=0.005)
    np.testing.assert_equal(metrics.up_capture([0.01, 0.02], [-0.01, 0.0]), nan)
    np.testing.assert_equal(metrics.down_capture([-1.5, 0.1], [-0.5, -0.5]), nan)


# --- NumPy and JAX


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("name", [*WHOLE, *SAMPLE])
def test_jax_as_numpy(name):
    """Also under jit, and no warning but one on the NumPy side, since warnings are errors here."""
    returns, benchmark = (frame.to_numpy() for frame in make_paths(12))
    ours = score(name, returns, benchmark)
    assert isinstance(ours, np.ndarray) and ours.dtype == np.float64
    with jax.enable_x64(True):
        compiled = jax.jit(lambda r, b: score(name, r, b))(returns, benchmark)
        assert isinstance(compiled, jax.Array)
        np.testing.assert_allclose(np.asarray(compiled), ours, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["sharpe_ratio", "drawdown", "beta", "tail_ratio", "skew"])
def test_vmap_as_lanes(name):
    returns, benchmark = (frame.to_numpy() for frame in make_paths(12))
    with jax.enable_x64(True):
        out = -1 if name == "drawdown" else 0
        mapped = jax.vmap(lambda r, b: score(name, r, b), in_axes=1, out_axes=out)(
            jnp.asarray(returns), jnp.asarray(benchmark)
        )
    np.testing.assert_allclose(np.asarray(mapped), score(name, returns, benchmark), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*WHOLE, *ROLLING])
def test_shapes_and_dtypes(name):
    rng = np.random.default_rng(0)
    returns, benchmark = rng.normal(0, 0.02, (2, 12, 3, 2)).astype(np.float32)
    path = name == "drawdown" or name.startswith("rolling_")
    out = score(name, returns, benchmark)
    assert out.shape == (12, 3, 2) if path else (3, 2)
    assert out.dtype == np.float32
    if name == "deflated_sharpe_ratio":
        return
    alone = score(name, returns[:, 1, 0], benchmark[:, 1, 0])
    assert np.ndim(alone) == (1 if path else 0)
    np.testing.assert_allclose(alone, out[..., 1, 0], rtol=2e-3, atol=1e-6)
    # One benchmark serves all lanes.
    shared = score(name, returns, benchmark[:, 1, 0])
    np.testing.assert_allclose(shared[..., 1, 0], out[..., 1, 0], rtol=2e-3, atol=1e-6)


def test_float32_under_jax_stays_float32():
    returns = jnp.asarray(make_paths(12)[0].to_numpy(), jnp.float32)
    with jax.enable_x64(True):
        out = metrics.sharpe_ratio(returns, ann_factor=np.float64(252), risk_free=np.zeros(returns.shape[1]))
    assert out.dtype == jnp.float32


def test_settings_may_differ_by_lane():
    returns = make_paths(12)[0].to_numpy()
    risk_free = np.linspace(0, 0.01, returns.shape[1])
    rolled = metrics.rolling_sharpe_ratio(returns, ann_factor=252, risk_free=risk_free, window=5)
    together = metrics.sharpe_ratio(returns, ann_factor=252, risk_free=risk_free)
    for lane, rate in enumerate(risk_free):
        alone = metrics.sharpe_ratio(returns[:, lane], ann_factor=252, risk_free=rate)
        np.testing.assert_allclose(together[lane], alone, rtol=1e-12)
        last = metrics.sharpe_ratio(returns[-5:, lane], ann_factor=252, risk_free=rate)
        if not np.isnan(returns[-5:, lane]).any():
            np.testing.assert_allclose(rolled[-1, lane], last, rtol=1e-12)


def test_rolling_in_chunks(monkeypatch):
    returns, benchmark = (frame.to_numpy() for frame in make_paths(60))
    whole = metrics.rolling_beta(returns, benchmark, window=7)
    monkeypatch.setattr("jaxsim.engine.metrics.rolling.CHUNK", 7 * returns.shape[1] * 10)
    np.testing.assert_array_equal(metrics.rolling_beta(returns, benchmark, window=7), whole)
    with jax.enable_x64(True):
        ours = jax.jit(lambda r, b: metrics.rolling_beta(r, b, window=7))(returns, benchmark)
    np.testing.assert_allclose(np.asarray(ours), whole, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("order", ["C", "F"])
def test_lanes_in_blocks(name, order, monkeypatch):
    returns, benchmark = (np.asarray(frame, order=order) for frame in make_paths(60))
    whole = score(name, returns, benchmark)
    monkeypatch.setattr("jaxsim.engine.metrics.rolling.BLOCK", 60 * 5)  # the last block is of another size
    np.testing.assert_allclose(score(name, returns, benchmark), whole, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("bars", [3, 1000])
@pytest.mark.parametrize("level", [0.1, 0.01, 1 / 3, -0.07])
def test_no_risk_is_exactly_none(bars, level):
    """An equal return at every bar is not a risk of 1e-17, in any dtype and namespace; the ratio has its sign."""
    for returns in (np.full(bars, level), np.full(bars, level, np.float32), jnp.full(bars, level)):
        assert metrics.annualized_volatility(returns, ann_factor=252) == 0
        assert metrics.sharpe_ratio(returns, ann_factor=252) == np.sign(level) * np.inf
        assert np.isnan(metrics.beta(returns, returns))
        if level > 0:
            assert metrics.max_drawdown(returns) == 0
            assert np.isnan(metrics.calmar_ratio(returns, ann_factor=252))


def test_gains_alone_are_no_drawdown():
    """Also where the running product is taken in parallel, which is not monotone to the last bit."""
    returns = jnp.asarray(np.abs(np.random.default_rng(0).normal(0, 1e-4, 5000)), jnp.float32)
    assert metrics.max_drawdown(returns) == 0
    assert jax.jit(metrics.ulcer_index)(returns) == 0


# --- gradients


def gradients(name, returns, benchmark):
    """Of the sum of all scores that are not NaN, by returns and benchmark, in float64."""

    def total(r, b):
        out = score(name, r, b)
        return jnp.sum(jnp.where(jnp.isnan(out), 0, out))

    with jax.enable_x64(True):
        by_returns, by_benchmark = jax.jit(jax.grad(total, (0, 1)))(returns, benchmark)
        return np.asarray(by_returns), np.asarray(by_benchmark)


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "deflated_sharpe_ratio"])
def test_gradient_as_finite_differences(name):
    rng = np.random.default_rng(5)
    returns, benchmark, direction, towards = rng.normal(0.001, 0.02, (4, 25))
    returns[7] = nan
    by_returns, by_benchmark = gradients(name, returns, benchmark)
    assert np.isfinite(by_returns).all() and np.isfinite(by_benchmark).all() and by_returns[7] == 0
    step = 1e-6
    up, down = (np.sum(score(name, returns + h * direction, benchmark + h * towards)) for h in (step, -step))
    slope = by_returns @ direction + by_benchmark @ towards
    np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [*WHOLE, "rolling_sharpe_ratio", "rolling_beta"])
def test_gradient_at_every_edge_is_finite(name):
    """Also where the value is infinite by convention; a missing score leaves the other gradients alone."""
    returns, benchmark = (frame.to_numpy() for frame in make_paths(12))
    by_returns, by_benchmark = gradients(name, returns, benchmark)
    assert np.isfinite(by_returns).all() and np.isfinite(by_benchmark).all()


def test_gradient_by_a_setting():
    returns = make_paths(12)[0]["random2"].to_numpy()
    with jax.enable_x64(True):
        slope = jax.grad(lambda rate: metrics.sharpe_ratio(returns, ann_factor=252, risk_free=rate))(0.001)
    per_bar = 1.001 ** (1 / 252 - 1) / 252  # the derivative of (1 + x)**(1 / 252) - 1
    np.testing.assert_allclose(slope, -np.sqrt(252) / returns.std(ddof=1) * per_bar, rtol=1e-9)


# --- ruin

#: The mean of the others cannot make up for it.
RATIOS_OF_ALL = sorted(name for name in WHOLE if getattr(getattr(metrics, name), "is_ratio", False))


@pytest.mark.parametrize("lost", [-1.0, -5.0])
@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_a_path_that_lost_everything_has_no_ratio(lost, xp):
    """A sum of gains around one loss of all, for which vectorbt has a ratio; an even power makes no gain of it."""
    rng = np.random.default_rng(5)
    r, b = rng.normal(0.02, 0.02, (2, 30, 3))
    r[12, 1], r[13:, 1] = lost, 0
    r, b = xp.asarray(r), xp.asarray(b)
    for name in RATIOS_OF_ALL:
        got = np.asarray(score(name, r, b))
        assert np.isnan(got[1]) and np.isfinite(got[[0, 2]]).all(), name
        if xp is np and f"rolling_{name}" in ROLLING and name not in ("up_capture", "down_capture"):
            rolled = score(f"rolling_{name}", r, b, window=8)
            assert np.isnan(rolled[12:20, 1]).all(), name
    assert metrics.total_return(r)[1] == pytest.approx(float(np.prod(1 + np.asarray(r)[:13, 1])) - 1)
    assert metrics.max_drawdown(r)[1] <= 0.8 * lost
    for years in (1.0, 2.0):
        annual = np.asarray(metrics.annualized_return(r, ann_factor=years * 30))[1]
        assert annual == -1 if lost == -1 else np.isnan(annual)
    assert "omega_ratio" in RATIOS_OF_ALL and len(RATIOS_OF_ALL) == 13


def test_the_gradient_of_a_ruined_path_is_no_nan():
    r, b = np.random.default_rng(6).normal(0, 0.02, (2, 30))
    r[12], r[13:] = -3.0, 0.0
    for name in RATIOS_OF_ALL:
        gradient = jax.grad(lambda r, name=name: score(name, r, jnp.asarray(b)))(jnp.asarray(r))
        assert np.isfinite(np.asarray(gradient)).all(), name


# --- returns of a value path


def test_returns_from_value():
    value = np.array([[110.0, 0.0, -50.0, nan], [99.0, 0.0, -25.0, 1.0], [0.0, 5.0, 0.0, 2.0], [0.0, -5.0, -1.0, 2.0]])
    init = np.array([100.0, 0.0, 100.0, 1.0])
    expected = [
        [0.1, 0.0, -1.5, nan],
        [-0.1, 0.0, 0.0, nan],
        [-1.0, 0.0, 0.0, 1.0],
        [0.0, 0.0, 0.0, 0.0],
    ]
    np.testing.assert_allclose(metrics.returns_from_value(value, init), expected, rtol=1e-15)
    np.testing.assert_allclose(metrics.returns_from_value(value[:, 0], 100), np.array(expected)[:, 0])
    out = metrics.returns_from_value(jnp.asarray(value, jnp.float32), init)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(metrics.returns_from_value, (1, 0), 1)(jnp.asarray(value), init), out)


def test_gradient_of_returns_from_value_passes_unknown_and_zero_values():
    value = jnp.array([110.0, nan, 121.0, 0.0, 0.0, 5.0, 10.0])

    def total(value, init):
        returns = metrics.returns_from_value(value, init)
        return jnp.sum(jnp.where(jnp.isfinite(returns), returns, 0))

    by_value, by_init = jax.grad(total, (0, 1))(value, 100.0)
    assert np.isfinite(by_value).all() and by_value[1] == 0
    np.testing.assert_allclose([by_init, by_value[0], by_value[-1]], [-110 / 100**2, 1 / 100, 0], rtol=1e-5)


# --- what is refused


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.sharpe_ratio([0.1, 0.2]), TypeError, "ann_factor"),
        (lambda: metrics.beta([0.1, 0.2]), TypeError, "expected the series returns, benchmark"),
        (lambda: metrics.total_return([0.1], 252), TypeError, "got returns, another"),
        (lambda: metrics.total_return([]), ValueError, "returns: expected at least one bar"),
        (lambda: metrics.total_return(0.1), ValueError, "returns: expected at least one bar"),
        (lambda: metrics.beta([0.1, 0.2], [0.1]), ValueError, "benchmark: 1 bars, but returns has 2"),
        (lambda: metrics.sharpe_ratio([0.1, 0.2], ann_factor=nan), ValueError, "^ann_factor: expected .* > 0, got nan"),
        (lambda: metrics.capture([0.1], [0.2], ann_factor=-252), ValueError, "^ann_factor: expected .* got -252"),
        (lambda: metrics.calmar_ratio([0.1], ann_factor="252"), TypeError, "^ann_factor: expected numbers, got str"),
        (lambda: metrics.rolling_martin_ratio([0.1], ann_factor=0), ValueError, "^ann_factor: expected .* got 0"),
        (lambda: metrics.value_at_risk([0.1], cutoff=5), ValueError, "^cutoff: expected .* > 0 and < 1, got 5"),
        (lambda: metrics.cond_value_at_risk([0.1], cutoff=0), ValueError, "^cutoff: expected .* got 0"),
        (
            lambda: metrics.sharpe_ratio([0.1], ann_factor=252, risk_free=3),
            ValueError,
            "^risk_free: .* 0.03 for 3",
        ),
        (lambda: metrics.omega_ratio([0.1], ann_factor=252, required_return=-1), ValueError, "^required_return: .* -1"),
        (lambda: metrics.sharpe_ratio([0.1], ann_factor=252, ddof=0.5), ValueError, "^ddof: expected a whole number"),
        (lambda: metrics.rolling_beta([0.1], [0.1], window=0), ValueError, "window"),
        (lambda: metrics.rolling_beta([0.1], [0.1], window=3, minp=4), ValueError, "minp"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_every_function_explains_itself():
    for name in metrics.__all__:
        function = getattr(metrics, name)
        assert function.__name__ == name
        assert re.search(r"\(rules\s+[5-8]", function.__doc__), name
    assert "window" in inspect.signature(metrics.rolling_sharpe_ratio).parameters


def test_the_first_bar_is_the_first_height():
    """A loss on the first bar is no drawdown (rules 7.4)."""
    returns = np.array([-0.5, 0.2, -0.25, 0.1])
    np.testing.assert_allclose(metrics.drawdown(returns), [0.0, 0.0, -0.25, -0.175], atol=1e-15)
    assert metrics.max_drawdown([-0.5, 0.1]) == 0.0
