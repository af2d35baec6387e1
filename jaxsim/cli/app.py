"""The commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

import jaxsim as js
from jaxsim.cli import outcome, present
from jaxsim.cli.complaint import Complaint, as_complaint, told_plainly
from jaxsim.cli.holdings import read_holdings
from jaxsim.cli.job import Job
from jaxsim.cli.prices import read_closes, read_opens, write_tables
from jaxsim.cli.ranges import numbers, weights
from jaxsim.datasets.binance_spot import BASE_URL

app = typer.Typer(
    help="Threshold rebalancing of portfolios: sweeps, tables and reports.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Over(StrEnum):
    """The assets that equal weight counts."""

    ALL = "all"
    TRADABLE = "tradable"


class Format(StrEnum):
    """File format of the tables that `fetch` writes."""

    CSV = "csv"
    PARQUET = "parquet"


class Engine(StrEnum):
    """The engine that runs the lanes."""

    COMPILED = "compiled"
    REFERENCE = "reference"


Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the tables and the report; created if missing.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jaxsim {js.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(out: Out = Path("runs/demo")) -> None:
    """Run fifteen thresholds on the embedded prices of five stocks: a table, and an HTML report."""

    def job() -> Job:
        data = js.datasets.stocks()
        return Job(
            title="Rebalancing five stocks at fifteen thresholds",
            source="Embedded daily prices, total-return adjusted",
            close=data.close,
            open=data.open,
            thresholds=numbers("0.01:0.15:0.01", "--threshold"),
            fees=[0.005],
            over="tradable",
        )

    with told_plainly():
        _run(job, out)


@app.command()
def fetch(
    symbols: Annotated[list[str], typer.Argument(metavar="SYMBOL", help="Pairs, such as BTCUSDT ETHUSDT.")],
    start: Annotated[str, typer.Option(help="First bar, in UTC, such as 2020-01-01 or 2020-01-01T12:00.")],
    end: Annotated[
        str | None, typer.Option(help="Last bar; a date includes the whole day. By default the last archived day.")
    ] = None,
    interval: Annotated[
        str, typer.Option(help="Length of a bar: 1s, 1m, ..., 30m, 1h, ..., 12h, 1d, 3d, 1w or 1mo.")
    ] = "1h",
    form: Annotated[Format, typer.Option("--format", help="File format of the tables.")] = Format.CSV,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for fetched files; by default $JAXSIM_CACHE.")
    ] = None,
    base_url: Annotated[str, typer.Option(metavar="URL", help="The archive, or a mirror of it.")] = BASE_URL,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the tables; created if missing.")] = Path(
        "prices"
    ),
) -> None:
    """Fetch spot prices of Binance from its public archive: one table each of open, high, low, close, volume."""
    with told_plainly():
        with as_complaint({"symbols": "SYMBOL"}):
            data = js.datasets.binance(symbols, interval, start, end, cache=cache, base_url=base_url)
        _make(out)
        with as_complaint({}):
            paths = write_tables(data, out, form.value)
    typer.echo(f"{data}\nTables: {', '.join(path.name for path in paths.values())} in {out}")
    freq = "" if interval == "1mo" else f" --freq {interval}"
    typer.echo(f"Next: jaxsim sweep {paths['close']} --open {paths['open']}{freq}")


@app.command()
def sweep(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Closing prices, .csv, .csv.gz or .parquet: times, then one column per asset (wide), or "
            "columns time, symbol, close and optionally open (long).",
        ),
    ],
    open_file: Annotated[
        Path | None,
        typer.Option("--open", metavar="FILE", help="Opening prices, for valuation and order sizes."),
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(help="Drift that triggers a rebalance: number, comma list, or start:stop:step (stop included)."),
    ] = "0.01:0.15:0.01",
    fees: Annotated[str, typer.Option(help="Fraction of the traded value; same forms.")] = "0",
    freq: Annotated[str | None, typer.Option(help="Length of a bar, such as 1h; by default the times tell.")] = None,
    year_freq: Annotated[str | None, typer.Option(help="Length of a year, such as 252D, beside --freq.")] = None,
    bars_per_year: Annotated[
        float | None, typer.Option(help="Bars in a year, such as 252; by default the times tell.")
    ] = None,
    init_cash: Annotated[float, typer.Option(help="Opening cash.")] = 100.0,
    units: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV of asset,units: what is held at the opening; a row `cash` is the cash."),
    ] = None,
    min_history: Annotated[int, typer.Option(help="Bars before the first trade.")] = 0,
    start: Annotated[
        int | None, typer.Option(help="First bar that metrics count, from 0; by default --min-history.")
    ] = None,
    fixed: Annotated[
        str | None, typer.Option("--weights", help="Target weights, such as AAPL=0.6,IBM=0.4; by default equal.")
    ] = None,
    over: Annotated[Over | None, typer.Option(help="Equal weight over all assets, or those listed so far.")] = None,
    engine: Annotated[Engine, typer.Option(help="Compiled, or plain NumPy (slow).")] = Engine.COMPILED,
    long: Annotated[
        bool | None, typer.Option("--long/--wide", help="Layout of the files; by default detected.")
    ] = None,
    out: Out = Path("runs/sweep"),
) -> None:
    """Run one or many thresholds and fees on your own prices."""

    def job() -> Job:
        thresholds, rates = numbers(threshold, "--threshold"), numbers(fees, "--fees")
        if fixed is not None and over is not None:
            raise Complaint("--over: it chooses the assets of equal weight, and --weights are given")
        close, opens = read_closes(file, long)
        if open_file is not None:
            opens = read_opens(open_file, long)
        held, cash = (None, None) if units is None else read_holdings(units, "--units")
        return Job(
            title=f"Rebalancing {file.name}",
            source=file.name,
            close=close,
            open=opens,
            thresholds=thresholds,
            fees=rates,
            weights=None if fixed is None else weights(fixed, close.columns),
            over=(over or Over.ALL).value,
            freq=freq,
            year_freq=year_freq,
            bars_per_year=bars_per_year,
            init_cash=init_cash if cash is None else cash,
            init_units=held,
            min_history=min_history,
            start=start,
            engine=engine.value,
            names={
                "close": "FILE",
                "open": "FILE" if open_file is None else "--open",
                "policy": "--weights",
                "init_units": "--units",
            },
        )

    with told_plainly():
        _run(job, out)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run of `demo` or `sweep`.")],
) -> None:
    """Draw the HTML report of a run again."""
    with told_plainly():
        typer.echo(f"Report: {present.write(outcome.load(folder), folder)}")


def _run(make_job: Callable[[], Job], out: Path) -> None:
    """Read prices, simulate, and write tables and the report. Raises Complaint for bad input."""
    with _stages(4) as stage:
        stage("reading prices")
        job = make_job()
        _make(out)
        stage(f"simulating {job.num_lanes:,} lanes")
        bt = job.simulate()
        stage("tables")
        result = job.outcome(bt)
        result.save(out)
        bt[result.best].orders.to_csv(out / "orders.csv", index=False)
        stage("report")
        path = present.write(result, out)
    typer.echo(present.summary(result))
    typer.echo(f"\nReport: {path}\nTables: metrics.csv, rebalances.csv and orders.csv (of the best) beside it")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Complaint(f"--out: the folder {str(folder)!r} cannot be made: {error.strerror}") from error


@contextmanager
def _stages(count: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on the error stream, if that is a terminal; removed at the end."""
    form = "{desc:<24} {bar:30} {n}/{total}"
    with tqdm(total=count, desc="starting", disable=None, leave=False, bar_format=form) as bar:
        begun: list[str] = []

        def begin(name: str) -> None:
            bar.n = len(begun)  # the number of finished stages
            begun.append(name)
            bar.set_description_str(name)

        yield begin
