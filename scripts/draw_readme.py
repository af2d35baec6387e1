"""Draw the figures of the README and of the tutorial page from the embedded stocks:

    python scripts/draw_readme.py [--out docs/images] [--chromium /usr/bin/chromium] [--key 42]

Each is a Plotly figure, drawn to PNG by headless Chromium. Nothing is downloaded.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import allocators as al
import jaxsim as js

WIDTH, SCALE = 900, 1.5
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=10000",
]


def figures(key: int) -> dict:
    """The figures by file name, with the calls of README.md and docs/tutorial.md."""
    data = js.datasets.stocks()
    costs = dict(fees=0.005, freq="1D", year_freq="252D")
    bt = js.backtest(
        data.close,
        al.EqualWeight(over="tradable"),
        open=data.open,
        trigger=js.Threshold(0.05),
        **costs,
    )
    four = ["AAPL", "GOOG", "IBM", "MSFT"]
    close, open_ = data.close.loc["2005":, four], data.open.loc["2005":, four]
    thresholds = js.Threshold(js.grid(threshold=np.arange(1, 16) / 100))
    equal = js.backtest(close, al.EqualWeight(), open=open_, trigger=thresholds, **costs)
    random = js.backtest(close, al.RandomWeights(), open=open_, trigger=thresholds, key=key, **costs)
    return {
        "weights": bt.plot_allocations(title="Equal weight of all listed stocks, rebalanced at a drift of 5 points"),
        "tutorial-weights": equal.plot_allocations(0.05, title="Realised weights, threshold 0.05"),
        "tutorial-sharpe": equal.plot_metric("sharpe_ratio"),
        "tutorial-targets-0.10": random.allocations.plot(0.10, title="Random targets, threshold 0.10"),
        "tutorial-targets-0.03": random.allocations.plot(0.03, title="Random targets, threshold 0.03"),
        "tutorial-realised-0.03": random.plot_allocations(0.03, title="Realised weights, threshold 0.03"),
    }


def photograph(figure, path: Path, chromium: str) -> None:
    """Write a figure as PNG, WIDTH pixels wide at a scale of SCALE."""
    height = figure.layout.height or 420
    figure.update_layout(width=WIDTH, height=height)
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch, "figure.html")
        body = figure.to_html(full_html=False, include_plotlyjs=True, config={"displayModeBar": False})
        page.write_text(f"<!doctype html><body style='margin:0'>{body}</body>", encoding="utf-8")
        command = [
            chromium,
            *FLAGS,
            f"--user-data-dir={scratch}/profile",
            f"--force-device-scale-factor={SCALE}",
            f"--window-size={WIDTH},{height}",
            f"--screenshot={path.resolve()}",
            page.as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    _shrink(path)


def _shrink(path: Path) -> None:
    """Reduce the number of colours, if Pillow is installed; plots with flat areas look the same."""
    try:
        from PIL import Image
    except ImportError:
        return
    with Image.open(path) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "images")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--key", type=int, default=42, help="seed of the random weights")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"key {arguments.key}")
    for name, figure in figures(arguments.key).items():
        path = arguments.out / f"{name}.png"
        photograph(figure, path, arguments.chromium)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
