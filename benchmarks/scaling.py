"""How the time of a sweep grows with the number of thresholds, bars and assets, each alone, on random walks.

    python -m benchmarks.scaling [--repeats 5] [--threads 2] [--picture docs/images/scaling.png]

Times are measured as in `benchmarks.against_fused`: arrays in, Sharpe ratios out, new prices in every repetition,
without compilation. The script prints them and the slope of the line through their logarithms: 1 is linear. The picture
needs the [plot] extra and a headless Chromium.
"""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks.against_fused import ours, prices, thresholds

#: The dimension that grows, and its sizes; the other dimensions are as in START.
START = {"thresholds": 64, "bars": 4096, "assets": 5}
SIZES = {
    "thresholds": [64, 256, 1024, 4096],
    "bars": [2048, 8192, 32_768, 131_072],
    "assets": [4, 16, 64, 256],
}


def seconds(thresholds_: int, bars: int, assets: int, repeats: int, threads: int) -> float:
    """Median seconds, without compilation."""
    rng, limits, took = np.random.default_rng(0), thresholds(thresholds_), []
    for repeat in range(repeats + 1):
        open_, close = prices(rng, bars, assets)
        begin = time.perf_counter()
        ours(open_, close, limits, threads)
        if repeat:
            took.append(time.perf_counter() - begin)
    return float(np.median(took))


def slope(sizes: list[int], times: list[float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def picture(times_of: dict[str, list[float]], path: Path, chromium: str) -> None:
    from plotly.subplots import make_subplots

    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    from draw_readme import photograph

    titles = [f"{name}, slope {slope(SIZES[name], times):.2f}" for name, times in times_of.items()]
    figure = make_subplots(1, len(times_of), subplot_titles=titles, shared_yaxes=True)
    for column, (name, times) in enumerate(times_of.items(), 1):
        sizes, cell = SIZES[name], dict(row=1, col=column)
        linear = times[0] * np.array(sizes) / sizes[0]
        figure.add_scatter(x=sizes, y=times, mode="lines+markers", line_color="#3f51b5", **cell)
        figure.add_scatter(x=sizes, y=linear, mode="lines", line=dict(color="grey", dash="dot"), **cell)
        figure.update_xaxes(type="log", tickvals=sizes, ticktext=[f"{x:,}" for x in sizes], **cell)
    figure.update_yaxes(type="log", dtick=1)
    figure.update_yaxes(title="seconds", col=1)
    figure.update_layout(template="plotly_white", showlegend=False, height=380, margin=dict(l=70, r=20, t=50, b=40))
    photograph(figure, path, chromium)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    print(f"python {platform.python_version()}, jax {jax.__version__}, {platform.machine()}, {options.threads} threads")
    times_of = {}
    with jax.enable_x64(True):
        for name, sizes in SIZES.items():
            times_of[name] = []
            for size in sizes:
                shape = START | {name: size}
                times_of[name].append(seconds(*shape.values(), options.repeats, options.threads))
                text = " x ".join(f"{count:,} {unit}" for unit, count in shape.items())
                print(f"{text:50}{times_of[name][-1] * 1e3:10.1f} ms", flush=True)
            print(f"{name}: slope {slope(sizes, times_of[name]):.2f}")
    print(f"load average: {', '.join(f'{x:.1f}' for x in os.getloadavg())}")
    if options.picture is not None:
        picture(times_of, options.picture, options.chromium)


if __name__ == "__main__":
    main()
