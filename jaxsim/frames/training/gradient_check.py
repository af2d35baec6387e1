"""What a comparison of a derivative with differences says, number by number."""

from collections import Counter
from dataclasses import dataclass
from typing import final

import numpy as np
import pandas as pd

from jaxsim.engine.training.gradient_check import LEVELS, Comparison

AGREES, EVENT, TIE, ORDER, KINK, JUMP = "agrees", "event moves", "tie", "orders differ", "kink", "jump"
CUT, NAN, DIFFERS, NONE = "cut off", "not finite", "differs", "no derivative"
#: What each verdict means, for messages.
MEANING = {
    EVENT: "a step to one side another bar rebalances, so that the score jumps there",
    TIE: "order values tie: a step to one side another purchase is the last one, which is cut to the cash there is; "
    'js.Policy(cut="pro_rata") cuts all alike, and has no such jump',
    ORDER: "a step to one side other orders fill, or another one is cut: cash just suffices, or a limit is just met",
    KINK: "the slopes to the left and to the right differ; the derivative is that of one side, or between them",
    JUMP: "the score changes by a step that does not shrink with the move",
    CUT: "the score depends on it, but the derivative is 0: stop_gradient, rounding, or a function of the host",
    NAN: "the derivative is NaN or infinite where the score is finite: often jnp.where over a NaN or a division by 0",
    DIFFERS: "none of the known reasons: the derivative is wrong",
    NONE: "whole numbers, bools and functions have no derivative",
}
#: Relative difference of a derivative and a difference that agree, and of the score's rounding errors.
TOLERANCE, ROUNDING = 1e-5, 1e-14


@final
@dataclass(frozen=True, eq=False)
class GradientCheck:
    """A derivative beside central differences.

    table: a row for each number of the policy, named as in `allocator.logits[0]`; see `js.check_gradient`.
    notes: what holds for the whole policy, such as a trigger without a margin.
    score: at the policy.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]
    score: float

    @property
    def is_right(self) -> bool:
        """Whether every derivative agrees, or differs for a reason that lies in the score: a jump or a kink."""
        return not {CUT, NAN, DIFFERS} & set(self.table["verdict"])

    def __str__(self) -> str:
        verdicts = list(self.table["verdict"])
        counts = Counter(verdicts).most_common()
        lines = [f"score {self.score:.6g}; " + ", ".join(f"{count} {verdict}" for verdict, count in counts)]
        for verdict in sorted(set(verdicts) - {AGREES}):
            rows = [place for place, other in enumerate(verdicts) if other == verdict]
            names = ", ".join(str(self.table.index[place]) for place in rows[:5]) + (", ..." if len(rows) > 5 else "")
            bars = [bar for bar in self.table["bar"].to_numpy(object)[rows] if bar is not pd.NA]
            first = f" (first at bar {min(bars)})" if bars else ""
            lines += [f"{names}: {verdict}{first}", f"    {MEANING[verdict]}"]
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__


def rows_of(found: Comparison, names: list[str], steps: np.ndarray) -> pd.DataFrame:
    """The table of a comparison."""
    score, derivative = float(found.score), np.asarray(found.derivative)
    up, down = np.asarray(found.up), np.asarray(found.down)
    moves = np.asarray(LEVELS)[:, None] * steps
    central, right, left = (up - down) / (2 * moves), (up - score) / moves, (score - down) / moves
    noise = ROUNDING * max(abs(score), 1.0) / moves
    verdicts, bars, best = [], [], []
    for i in range(len(names)):
        events = (None if x is None else np.asarray(x)[:, i] for x in (found.moved, found.other, found.tied))
        level = _best(derivative[i], central[:, i], noise[:, i])
        best.append(central[level, i])
        verdict, bar = _verdict(derivative[i], central[:, i], right[:, i], left[:, i], noise[:, i], *events)
        verdicts.append(verdict)
        bars.append(bar)
    larger = np.maximum(np.abs(derivative), np.abs(best))
    error = np.divide(np.abs(derivative - best), larger, out=np.zeros_like(larger), where=larger != 0)
    return pd.DataFrame(
        {
            "derivative": derivative,
            "difference": best,
            "relative_error": error,
            "verdict": verdicts,
            "bar": pd.array(bars, "Int64"),
        },
        index=pd.Index(names, name="number"),
    )


def _best(derivative: float, central: np.ndarray, noise: np.ndarray) -> int:
    """The level whose difference is nearest to the derivative."""
    if not np.isfinite(derivative):
        return 1
    return int(np.argmin(np.abs(central - derivative) - noise))


def _verdict(
    derivative: float,
    central: np.ndarray,
    right: np.ndarray,
    left: np.ndarray,
    noise: np.ndarray,
    moved: np.ndarray | None,
    other: np.ndarray | None,
    tied: np.ndarray | None,
) -> tuple[str, int | None]:
    """The verdict on one number, and the bar that explains it. Arrays are by level."""
    if not np.isfinite(derivative):
        return NAN, None
    size = np.maximum(np.abs(central), abs(derivative))
    if (np.abs(central - derivative) <= TOLERANCE * size + 30 * noise).any():
        return AGREES, None
    # The smaller the move, the less of the difference is curvature, and an order comes before the events that it moves.
    for level in range(len(LEVELS)):
        first = {
            verdict: x[level] for verdict, x in ((EVENT, moved), (ORDER, other)) if x is not None and x[level] >= 0
        }
        if first:
            verdict = min(first, key=lambda name: (first[name], name))
            is_tie = verdict == ORDER and tied is not None and tied[level] == first[verdict]
            return TIE if is_tie else verdict, int(first[verdict])
    one_sided = np.abs(right - left) > 1e-3 * np.maximum(np.abs(right), np.abs(left)) + 60 * noise
    if one_sided[0] and abs(right[0] - left[0]) > 5 * abs(right[1] - left[1]):
        return JUMP, None
    if one_sided[0] and abs(right[0] - left[0]) > 0.5 * abs(right[1] - left[1]):
        return KINK, None
    if derivative == 0:
        return CUT, None
    return DIFFERS, None
