"""Draw the figures of docs/triggers.md and docs/destinations.md from the embedded stocks:

    python scripts/draw_rules.py [--out docs/images] [--chromium /usr/bin/chromium]

Each is a Plotly figure, drawn to PNG by headless Chromium (see draw_readme.py). Nothing is downloaded.
"""

import argparse
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from draw_readme import photograph

import allocators as al
import jaxsim as js

FOUR = ["AAPL", "GOOG", "IBM", "MSFT"]
COLOURS = ["#3f51b5", "#e65100", "#2e7d32", "#8e24aa"]
BAND = "rgba(120, 120, 120, 0.15)"


def backtest(trigger, destination=None, weights=(0.25,) * 4, **span):
    """A backtest of four stocks in 2008 and 2009, years of large price moves."""
    data = js.datasets.stocks()
    chosen = slice(*span.get("span", ("2008-06", "2009-05")))
    close, open_ = data.close.loc[chosen, FOUR], data.open.loc[chosen, FOUR]
    options = dict(open=open_, fees=0.001, freq="1D", year_freq="252D", engine="reference")
    return js.backtest(close, al.FixedWeights(list(weights)), trigger=trigger, destination=destination, **options)


def titled(figure: go.Figure, title: str, y: str, height: int = 380) -> go.Figure:
    figure.update_layout(
        title=title,
        template="plotly_white",
        height=height,
        margin=dict(l=70, r=20, t=50, b=40),
        yaxis_title=y,
        legend=dict(orientation="h", y=-0.12),
    )
    return figure


def thresholds() -> go.Figure:
    bt = backtest(js.Threshold(0.05))
    figure = go.Figure()
    figure.add_hrect(y0=-0.05, y1=0.05, fillcolor=BAND, line_width=0)
    for name, colour in zip(FOUR, COLOURS, strict=True):
        figure.add_scatter(x=bt.weights.index, y=bt.weights[name] - 0.25, name=name, line=dict(color=colour, width=1.3))
    for when in bt.rebalance_index:
        figure.add_vline(x=when, line=dict(width=1, dash="dot", color="#888"))
    return titled(figure, "Threshold(0.05): one asset outside its band makes all assets trade", "weight less target")


def portfolio_drift() -> go.Figure:
    figure = go.Figure()
    measures = {
        "HalfL1Drift": (js.HalfL1Drift(0.06), lambda drift: drift.abs().sum(axis=1) / 2),
        "L2Drift": (js.L2Drift(0.06), lambda drift: np.sqrt((drift**2).sum(axis=1))),
    }
    for colour, (name, (trigger, measure)) in zip(COLOURS, measures.items(), strict=False):
        bt = backtest(trigger)
        figure.add_scatter(x=bt.weights.index, y=measure(bt.weights - 0.25), name=name, line=dict(color=colour))
    figure.add_hline(y=0.06, line=dict(color="#444", dash="dash"), annotation_text="threshold")
    return titled(figure, "The drift of the whole portfolio, by two measures and one threshold", "drift")


def when_it_trades() -> go.Figure:
    triggers = {
        "Threshold(0.05)": js.Threshold(0.05),
        'Every("MS")': js.Every("MS"),
        "EveryBars(42)": js.EveryBars(42),
        'Threshold(0.05) & Every("MS")': js.Threshold(0.05) & js.Every("MS"),
        'Threshold(0.05) | Every("QS")': js.Threshold(0.05) | js.Every("QS"),
    }
    figure = go.Figure()
    for k, (name, trigger) in enumerate(triggers.items()):
        bt = backtest(trigger)
        marker = dict(size=9, color=COLOURS[k % 4], symbol="diamond")
        figure.add_scatter(x=bt.rebalance_index, y=[name] * bt.num_rebalances(), mode="markers", marker=marker)
    figure.update_layout(showlegend=False, yaxis=dict(autorange="reversed"))
    titled(figure, "When five triggers rebalance the same four stocks", "", 330)
    return figure.update_layout(margin_l=220)


def tracking_error() -> go.Figure:
    bt = backtest(js.TrackingError(0.02, lookback=60, ann_factor=252.0), span=("2008-01", "2009-12"))
    drift, returns = bt.weights - 0.25, js.datasets.stocks().close[FOUR].pct_change()
    error = [
        np.sqrt(a @ returns[:when].iloc[-60:-1].cov().to_numpy() @ a * 252)
        for when, a in zip(drift.index, drift.to_numpy(), strict=True)
    ]
    figure = go.Figure(go.Scatter(x=drift.index, y=error, line=dict(color=COLOURS[0]), name="tracking error, a year"))
    figure.add_hline(y=0.02, line=dict(color="#444", dash="dash"), annotation_text="threshold")
    return titled(figure, "TrackingError(0.02, lookback=60, ann_factor=252)", "tracking error per year")


def way(destination, name: str) -> go.Figure:
    """The weight of one stock under a destination and under ToTarget."""
    figure = go.Figure()
    figure.add_hrect(y0=0.23, y1=0.27, fillcolor=BAND, line_width=0)
    figure.add_hline(y=0.25, line=dict(color="#888", dash="dot"))
    trigger = js.Threshold(0.02)
    for colour, (label, rule) in zip(COLOURS, {"ToTarget()": None, name: destination}.items(), strict=False):
        bt = backtest(trigger, rule, span=("2008-08", "2008-12"))
        weights, bars = bt.weights["AAPL"], bt.orders.query("asset == 'AAPL'").timestamp.unique()
        figure.add_scatter(x=weights.index, y=weights, name=label, line=dict(color=colour, width=1.5))
        figure.add_scatter(
            x=bars, y=weights[bars], mode="markers", marker=dict(size=6, color=colour), name="", showlegend=False
        )
    return titled(figure, f"AAPL under Threshold(0.02), target 0.25: {name}", "weight after the close")


def figures() -> dict[str, go.Figure]:
    return {
        "trigger-threshold": thresholds(),
        "trigger-portfolio": portfolio_drift(),
        "trigger-tracking-error": tracking_error(),
        "trigger-when": when_it_trades(),
        "destination-edge": way(js.ToEdge(), "ToEdge()"),
        "destination-fraction": way(js.Fraction(0.5), "Fraction(0.5)"),
        "destination-breached": way(js.OnlyBreached(of=js.ToEdge(0.01)), "OnlyBreached(of=ToEdge(0.01))"),
        "destination-turnover": way(js.TurnoverCap(0.005), "TurnoverCap(0.005)"),
        "destination-spread": way(js.SpreadOver(5), "SpreadOver(5)"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "images")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures().items():
        path = arguments.out / f"{name}.png"
        photograph(figure, path, arguments.chromium)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
