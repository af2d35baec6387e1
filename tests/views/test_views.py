"""Views: what the figures hold, that the report stands alone, and that misuse is told in a sentence."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from jaxsim import views
from jaxsim.views import _series

go = pytest.importorskip("plotly.graph_objects")


def random_weights(assets: int, bars: int = 40, total: float = 0.9, index: pd.Index | None = None) -> pd.DataFrame:
    draws = np.random.default_rng(assets).dirichlet(np.ones(assets), bars) * total
    index = pd.date_range("2020-01-01", periods=bars, freq="D") if index is None else index
    return pd.DataFrame(draws, index=index, columns=[f"A{i}" for i in range(assets)])


def heights(fig) -> np.ndarray:
    """What the areas add up to at each drawn row."""
    return sum(np.asarray(trace.y, dtype=float) for trace in fig.data if trace.stackgroup)


def names(fig) -> list[str]:
    return [trace.name for trace in fig.data]


# --- weights


@pytest.mark.parametrize("assets", [1, 5, 50])
@pytest.mark.parametrize("draw", [views.stacked_weights, views.stacked_targets])
def test_stacks_sum_to_one_with_cash_as_the_last_area(draw, assets):
    weights = random_weights(assets)
    fig = draw(weights)
    np.testing.assert_allclose(heights(fig), 1.0, atol=1e-12)
    areas = [trace for trace in fig.data if trace.stackgroup]
    assert [area.name for area in areas] == [*weights.columns, "cash"]
    np.testing.assert_array_equal(areas[0].y[: len(weights)], weights["A0"])
    assert len({area.fillcolor for area in areas}) == assets + 1
    fig.to_json()


def test_cash_shows_only_where_it_is_visible():
    assert "cash" not in names(views.stacked_weights(random_weights(5, total=1 - 1e-7)))
    assert "cash" in names(views.stacked_weights(random_weights(5, total=1 - 1e-5)))


def test_an_asset_called_cash_is_not_the_remainder():
    weights = random_weights(1).set_axis(["cash"], axis=1)
    fig = views.stacked_weights(weights)
    assert names(fig) == ["cash", "cash"]
    np.testing.assert_allclose(heights(fig), 1.0)


def test_shorts_and_debt_hang_below_zero():
    weights = pd.DataFrame({"A": [1.5, 0.5], "B": [-0.3, 0.2]})
    fig = views.stacked_weights(weights)
    below = {trace.name: list(trace.y) for trace in fig.data if trace.stackgroup == "short"}
    assert below.keys() == {"B", "cash"} and below["B"] == [-0.3, 0.0]
    np.testing.assert_allclose(heights(fig), 1.0)


def test_missing_weights_count_as_no_position():
    weights = random_weights(2)
    weights.iloc[:5, 0] = np.nan
    assert list(views.stacked_weights(weights).data[0].y[:5]) == [0.0] * 5


def test_many_assets_hover_one_at_a_time():
    assert views.stacked_weights(random_weights(5)).layout.hovermode == "x unified"
    assert views.stacked_weights(random_weights(50)).layout.hovermode == "closest"


def test_targets_step_at_their_dates_and_are_held_to_the_end():
    dates = pd.DatetimeIndex(["2020-01-01", "2020-02-03", "2020-05-04"], name="time")
    targets = random_weights(3, bars=3, index=dates)
    fig = views.stacked_targets(targets, end="2020-12-31")
    area, ticks = fig.data[0], fig.data[-1]
    assert area.line.shape == "hv"
    assert list(pd.DatetimeIndex(area.x)) == [*dates, pd.Timestamp("2020-12-31")]
    np.testing.assert_array_equal(area.y, [*targets["A0"], targets["A0"].iloc[-1]])
    assert ticks.mode == "markers" and list(pd.DatetimeIndex(ticks.x)) == list(dates)
    assert fig.layout.xaxis.title.text == "time"


def test_targets_without_end_still_show_the_last_one():
    bars = random_weights(2, bars=3, index=pd.Index([0, 10, 30]))
    fig = views.stacked_targets(bars)
    assert list(fig.data[0].x) == [0, 10, 30, 50] and fig.layout.xaxis.title.text == "bar"
    single = views.stacked_targets(random_weights(2, bars=1))
    assert pd.DatetimeIndex(single.data[0].x)[1] == pd.Timestamp("2020-01-02")


def test_assets_left_alone_are_not_called_cash():
    targets = random_weights(2, bars=3)
    targets.iloc[1, 0] = np.nan
    assert "cash, or left alone" in names(views.stacked_targets(targets))


# --- value and drawdown


def test_drawdown_is_the_fraction_below_the_best_so_far():
    value = pd.Series([100.0, 120.0, 90.0, 130.0, 65.0])
    expected = [0.0, 0.0, -0.25, 0.0, -0.5]
    assert views.drawdown(value).tolist() == expected
    top, below = views.value_with_drawdown(value).data
    assert list(top.y) == value.tolist() and list(below.y) == expected
    assert below.fill == "tozeroy" and (top.yaxis, below.yaxis) == ("y", "y2")


@pytest.mark.parametrize("lanes", [2, 15, 16])
def test_lanes_are_named_in_a_legend_of_at_most_fifteen(lanes):
    columns = pd.MultiIndex.from_product([["g"], np.arange(lanes) / 100], names=["group", "threshold"])
    value = pd.DataFrame(np.ones((4, lanes)), columns=columns)
    fig = views.value_with_drawdown(value)
    assert len(fig.data) == 2 * lanes and fig.data[2].name == "g / 0.01"
    assert fig.data[2].legendgroup == fig.data[3].legendgroup
    assert fig.layout.showlegend is (lanes <= 15)
    assert fig.layout.legend.title.text == "group / threshold"


# --- thinning


@pytest.mark.parametrize("bars", [4_001, 8_767, 525_600])
def test_long_lines_are_thinned_without_losing_an_extreme(bars):
    value = pd.Series(np.exp(np.random.default_rng(0).normal(0, 0.001, bars).cumsum()))
    value[bars // 3], value[bars // 2] = 50.0, 0.001
    fig = views.value_with_drawdown(value)
    for trace, full in zip(fig.data, (value, views.drawdown(value)), strict=True):
        assert len(trace.x) <= 4_000 and (np.diff(trace.x) > 0).all()
        assert (trace.y.max(), trace.y.min()) == (full.max(), full.min())
        assert (trace.x[0], trace.x[-1]) == (0, bars - 1)
        np.testing.assert_array_equal(trace.y, full.to_numpy()[trace.x])


def test_thinning_keeps_gaps_and_short_lines():
    values = np.ones(10_000)
    values[2_000:4_000] = np.nan
    rows = _series.envelope(values, 100)
    assert len(rows) <= 100 and np.isnan(values[rows]).sum() > 5
    np.testing.assert_array_equal(_series.envelope(values[:100], 100), np.arange(100))


def test_thinned_weights_keep_the_rows_around_jumps():
    weights = pd.DataFrame({"A": np.full(100_000, 0.2), "B": 0.5})
    jumps = [777, 31_234, 99_998]
    for at in jumps:
        weights.loc[at:, "A"] += 0.1
    fig = views.stacked_weights(weights)
    assert len(fig.data[0].x) <= 4_000
    assert {row for at in jumps for row in (at - 1, at)} <= set(fig.data[0].x)
    np.testing.assert_allclose(heights(fig), 1.0)


def test_many_lanes_share_the_budget():
    assert _series.point_budget(1) == _series.point_budget(15) == 4_000
    assert _series.point_budget(100) == 600 and _series.point_budget(10_000) == 300


# --- metrics


def test_one_level_is_a_line_with_its_best_named():
    metric = pd.Series([0.5, 2.0, 1.0], pd.Index([0.03, 0.01, 0.02], name="threshold"), name="sharpe_ratio")
    fig = views.metric_against(metric)
    assert fig.data[0].mode == "lines+markers"
    assert list(fig.data[0].x) == [0.01, 0.02, 0.03] and list(fig.data[0].y) == [2.0, 1.0, 0.5]
    assert fig.layout.annotations[0].text == "highest 2 at threshold 0.01"
    assert (fig.layout.xaxis.title.text, fig.layout.yaxis.title.text) == ("threshold", "sharpe_ratio")
    assert views.metric_against(metric, best="min").layout.annotations[0].text == "lowest 0.5 at threshold 0.03"
    assert not views.metric_against(metric, best=None).layout.annotations


def test_words_are_not_joined_by_a_line():
    metric = pd.Series([1.0, 2.0], pd.Index(["hold", "drift"], name="policy"))
    fig = views.metric_against(metric)
    assert fig.data[0].mode == "markers" and list(fig.data[0].x) == ["hold", "drift"]


def test_heatmap_has_the_first_level_in_rows():
    index = pd.MultiIndex.from_product([[0.2, 0.1], ["x", "b", "c"]], names=["threshold", "group"])
    metric = pd.Series(np.arange(6.0), index, name="m").drop((0.1, "b"))
    fig = views.metric_against(metric.sample(frac=1, random_state=1).reindex(metric.index))
    heat = fig.data[0]
    assert list(heat.y) == ["0.1", "0.2"] and list(heat.x) == ["x", "b", "c"]
    for (row, column), value in metric.items():
        assert heat.z[list(heat.y).index(f"{row:g}")][list(heat.x).index(column)] == value
    assert np.isnan(heat.z[0][1])
    assert (fig.layout.yaxis.title.text, fig.layout.xaxis.title.text) == ("threshold", "group")
    assert fig.layout.annotations[0].text == "highest 5 at threshold 0.1, group c"
    assert (fig.data[1].x[0], fig.data[1].y[0]) == ("c", "0.1")


def test_metrics_without_a_best_are_drawn_all_the_same():
    assert not views.metric_against(pd.Series([np.nan, np.inf])).layout.annotations


# --- time axes


def test_time_zones_are_drawn_as_wall_time_unless_that_is_ambiguous():
    summer = pd.date_range("2020-06-01", periods=4, freq="h", tz="America/New_York")
    fig = views.stacked_weights(random_weights(2, bars=4, index=summer))
    assert pd.Timestamp(fig.data[0].x[0]) == pd.Timestamp("2020-06-01")
    assert fig.layout.xaxis.title.text == "America/New_York"
    autumn = pd.date_range("2020-11-01", periods=12, freq="h", tz="America/New_York")
    fig = views.value_with_drawdown(pd.Series(1.0, autumn))
    assert pd.Timestamp(fig.data[0].x[0]) == pd.Timestamp("2020-11-01 04:00")
    assert fig.layout.xaxis2.title.text == "UTC"
    ends = views.stacked_targets(random_weights(2, bars=4, index=summer), end="2020-06-02 00:00-04:00")
    assert pd.Timestamp(ends.data[0].x[-1]) == pd.Timestamp("2020-06-02")


def test_dates_take_no_more_text_than_they_need():
    assert views.stacked_weights(random_weights(1)).data[0].x.dtype == "datetime64[D]"
    fine = pd.DatetimeIndex(["2020-01-01", "2020-01-01 00:00:00.123456"])
    assert pd.DatetimeIndex(_series.drawable(fine))[1] == fine[1]


# --- report


class Page(HTMLParser):
    """The tags, attributes and text outside scripts, as a browser would find them."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags[-1:] and self.tags[-1][0] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    evil = "<script>alert('x')</script>&"
    figure = views.value_with_drawdown(pd.Series([1.0, 2.0], name=evil), title=f"Value of {evil}")
    stocks = views.stacked_weights(random_weights(2).set_axis([evil, "S&P"], axis=1))
    table = pd.DataFrame({evil: [evil, "b"], "n": [1234.5, np.nan], "count": [1, 20_000]})
    table.index = pd.MultiIndex.from_tuples([(0.01, pd.Timestamp("2020-01-01")), (0.1, pd.NaT)], names=[evil, "day"])
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    title = figure.layout.title.text
    written = views.write_report(
        path,
        title=evil,
        subtitle=evil,
        tables={evil: table, "long": pd.DataFrame({"x": range(1_500)})},
        figures={"Value " + evil: figure, "Weights": stocks},
        notes=[evil],
    )
    assert written == path
    assert figure.layout.title.text == title  # the caller's figure is left as it was
    return path.read_text(encoding="utf-8")


def test_report_loads_nothing_from_anywhere(report):
    tags = Page(report).tags
    assert not [(tag, attrs) for tag, attrs in tags if {"src", "href", "srcset", "action"} & attrs.keys()]
    assert not {tag for tag, _ in tags} & {"link", "iframe", "object", "base", "form"}
    assert "default-src 'none'" in report and "@import" not in report.split("<body>")[1]
    assert report.count('"showSendToCloud": false') == 2  # two figures, neither offers to leave for the cloud


def test_report_holds_plotly_once(report):
    from plotly.offline import get_plotlyjs

    assert report.count(get_plotlyjs()[:200]) == 1
    assert len(report) < len(get_plotlyjs()) + 200_000


def test_report_escapes_what_users_wrote(report):
    page = Page(report)
    assert "alert('x')</script>" not in report
    assert page.text.count("<script>alert('x')</script>&") >= 6
    assert [tag for tag, _ in page.tags].count("script") == 4  # plotly, two figures, the touch rule


def test_report_tables_are_plain_and_aligned(report):
    assert "<td class=n>1,234.5</td>" in report and "<td class=n>20,000</td>" in report
    assert "<th class=n>0.01</th><th>2020-01-01</th>" in report and "<th class=n>0.10</th>" in report
    assert "The first 1,000 of 1,500 rows." in report and "<td class=n>999</td>" in report
    assert 'name="viewport"' in report and "prefers-color-scheme: dark" in report


def test_a_report_of_tables_alone_is_small_and_takes_stats(tmp_path):
    stats = pd.Series({"Start": pd.Timestamp("2020-01-01"), "Sharpe": np.float32(1.5), "Trades": 1234, "Won": True})
    page = views.write_report(tmp_path / "t.html", title="t", tables={"Stats": stats}).read_text()
    assert len(page) < 5_000 and "<script>" not in page.replace("<script></script>", "")
    assert "<td>2020-01-01</td>" in page and "<td class=n>1,234</td>" in page and "<td>True</td>" in page


# --- misuse


EMPTY = pd.DataFrame()
LONG = pd.Series(1.0, pd.MultiIndex.from_tuples([(1, 2, 3)], names=["a", "b", "c"]))
LANES = pd.DataFrame({"A": [1.0]}, pd.MultiIndex.from_tuples([(0.1, 0)], names=["threshold", "time"]))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: views.stacked_weights(EMPTY), ValueError, "weights is empty"),
        (lambda: views.stacked_targets(EMPTY), ValueError, "weights is empty"),
        (lambda: views.value_with_drawdown(EMPTY), ValueError, "value is empty"),
        (lambda: views.value_with_drawdown(pd.Series(dtype=float)), ValueError, "value is empty"),
        (lambda: views.metric_against(pd.Series(dtype=float)), ValueError, "series is empty"),
        (lambda: views.stacked_weights(np.ones((2, 2))), TypeError, "weights must be a pandas DataFrame"),
        (lambda: views.stacked_weights(pd.DataFrame({"A": ["x"]})), ValueError, "weights must be numeric"),
        (lambda: views.stacked_weights(LANES), ValueError, "threshold, time.*select one lane"),
        (lambda: views.stacked_targets(random_weights(2)[::-1]), ValueError, "ascending"),
        (lambda: views.stacked_targets(random_weights(2), end="2019-01-01"), ValueError, "before the last"),
        (lambda: views.stacked_targets(random_weights(2), end="2021-01-01T00:00Z"), ValueError, "time zone"),
        (lambda: views.value_with_drawdown([1.0]), TypeError, "value must be a pandas Series or DataFrame"),
        (lambda: views.metric_against(LONG), ValueError, r"3 levels \(a, b, c\).*\.xs\(1, level='a'\)"),
        (lambda: views.metric_against(pd.DataFrame({"a": [1]})), TypeError, "series must be a pandas Series"),
        (
            lambda: views.metric_against(pd.Series([1.0, 2.0], [1, 1])),
            ValueError,
            "more than one value for 1",
        ),
        (lambda: views.metric_against(pd.Series([1.0]), best="high"), ValueError, "best must be"),
        (lambda: views.write_report("x", title="t"), ValueError, "Nothing to report"),
        (lambda: views.write_report("x", title="t", tables={"a": [1]}), TypeError, r"tables\['a'\]"),
        (lambda: views.write_report("x", title="t", figures={"a": {}}), TypeError, r"figures\['a'\]"),
        (
            lambda: views.write_report("x", title="t", tables={"a": LONG}, notes="n"),
            TypeError,
            "notes must be",
        ),
    ],
)
def test_misuse_is_told_in_a_sentence(call, error, says):
    # Under the type-checking import hook, beartype speaks first where a type is wrong.
    with pytest.raises((error, TypeError), match=f"{says}|Type-check error"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: views.stacked_weights(random_weights(2)),
        lambda: views.stacked_targets(random_weights(2)),
        lambda: views.value_with_drawdown(pd.Series([1.0, 2.0])),
        lambda: views.metric_against(pd.Series([1.0, 2.0])),
        lambda: views.write_report("x", title="t", figures={"a": None}),
    ],
)
def test_missing_plotly_gives_the_pip_command(call, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxsim-portfolio\[plot\]'"):
        call()


def test_importing_views_does_not_import_plotly():
    code = "import sys, jaxsim.views; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
