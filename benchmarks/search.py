"""Searches over parameters: Optuna in batches against one by one, and the Hyperopt space of vectorbt's tutorial in
serial.

    python -m benchmarks.search [--trials 500] [--batch 50] [--evals 200]

Optuna searches a threshold and a fee of threshold rebalancing; a batch of trials is one vectorised simulation.
Hyperopt's `fmin` searches the tutorial's space (99 values of `every`, num_tests, real-valued fees). The script counts
the programs compiled over all 99 values of `every`, and the trials per second after that. Needs the [search] extra, and
the data that `tools.outside_data` finds.
"""

import argparse
import time

import jax
import numpy as np

import allocators as al
import jaxsim as js
from tools.outside_data import load_binance

OPEN, CLOSE = load_binance()
WEIGHTS = al.EqualWeight()


def simulate(threshold, fees):
    """Sharpe ratios of threshold rebalancing."""
    trigger = js.Threshold(threshold)
    return js.backtest(CLOSE, WEIGHTS, open=OPEN, trigger=trigger, fees=fees, freq="1h").sharpe_ratio()


def suggest(trial):
    return trial.suggest_float("threshold", 0.005, 0.2), trial.suggest_float("fees", 0.0, 0.01)


def one_by_one(study, trials: int) -> float:
    start = time.perf_counter()
    study.optimize(lambda trial: simulate(*suggest(trial)), n_trials=trials)
    return time.perf_counter() - start


def in_batches(study, trials: int, batch: int) -> float:
    start = time.perf_counter()
    for begin in range(0, trials, batch):
        asked = [study.ask() for _ in range(min(batch, trials - begin))]
        threshold, fees = zip(*map(suggest, asked), strict=True)
        lanes = js.zipped(threshold=threshold, fees=fees)
        for trial, score in zip(asked, simulate(lanes.threshold, lanes.fees), strict=True):
            study.tell(trial, score)
    return time.perf_counter() - start


def with_optuna(trials: int, batch: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name, sampler in (("random", optuna.samplers.RandomSampler), ("TPE", optuna.samplers.TPESampler)):

        def study(seed, sampler=sampler):
            return optuna.create_study(direction="maximize", sampler=sampler(seed=seed))

        one_by_one(study(1), 2)
        in_batches(study(1), batch, batch)  # compiled
        alone, other = study(0), study(0)
        seconds, together = one_by_one(alone, trials), in_batches(other, trials, batch)
        print(
            f"Optuna, {name}: {trials} trials one by one {seconds:.2f} s (best {alone.best_value:.3f}), in batches of "
            f"{batch} {together:.2f} s (best {other.best_value:.3f}): {seconds / together:.1f} times faster"
        )


def objective(point: dict) -> float:
    search = al.RandomSearchSharpe(point["num_tests"])
    plan = js.optimize(CLOSE, search, every=point["every"])
    return -js.replay(plan, CLOSE, open=OPEN, fees=point["fees"], freq="1h").sharpe_ratio()


def with_hyperopt(evals: int) -> None:
    from hyperopt import fmin, hp, tpe

    compiled = [0]

    def count(event: str, duration: float, **_) -> None:
        compiled[0] += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(count)
    every = [f"{n}D" for n in range(1, 100)]
    objective({"every": "1D", "num_tests": 10, "fees": 0.001})
    first = compiled[0]
    for label in every:
        objective({"every": label, "num_tests": 10, "fees": 0.001})
    print(f"Hyperopt: {first} programs for the first trial, {compiled[0] - first} more over all 99 values of every")
    space = {
        "every": hp.choice("every", every),
        "num_tests": hp.quniform("num_tests", 5, 100, 1),
        "fees": hp.uniform("fees", 0, 0.05),
    }
    before, start = compiled[0], time.perf_counter()
    best = fmin(
        objective, space, algo=tpe.suggest, max_evals=evals, rstate=np.random.default_rng(0), show_progressbar=False
    )
    seconds = time.perf_counter() - start
    print(f"Hyperopt: {evals / seconds:.1f} trials per second, {compiled[0] - before} programs compiled; best {best}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--evals", type=int, default=200)
    options = parser.parse_args()
    with_hyperopt(options.evals)
    with_optuna(options.trials, options.batch)


if __name__ == "__main__":
    main()
