"""The pictures of a result, as methods."""

import abc
from typing import Any

import numpy as np

from jaxsim.frames.results.metric_methods import ONE_PER_LANE


class Plots(abc.ABC):
    """Plotly figures of a `Backtest`. All raise ImportError naming the pip command where Plotly is missing."""

    value: Any
    weights: Any
    lanes: Any
    decisions: Any

    @abc.abstractmethod
    def __getitem__(self, key: Any) -> Any: ...

    @property
    @abc.abstractmethod
    def _num_lanes(self) -> int: ...

    def plot_allocations(self, key: Any = None, **kwargs: Any) -> Any:
        """Stacked realised weights of one lane.

        key: label of the lane, as in `[]`; not needed for a single one. Raises ValueError if several are left.
        """
        from jaxsim import views

        one = self if key is None else self[key]
        if one._num_lanes > 1:
            raise ValueError("plot_allocations draws one lane; name one, as in bt.plot_allocations(0.05)")
        weights = one.weights
        if one.lanes is not None:
            weights = weights.droplevel(list(range(one.lanes.nlevels)), axis=1)
        return views.stacked_weights(weights, **kwargs)

    def plot_rebalance(self, when: Any, key: Any = None, **kwargs: Any) -> Any:
        """One rebalance of one lane: each asset's weight before and after, its target, and what kept it from getting
        there.

        when: its time, or its number among the lane's rebalances (negative: from the last); of one that is spread over
            several bars the number is its first part, and each time one part.
        key: label of the lane, as in `[]`; not needed for a single one.
        Raises ValueError if several lanes are left; KeyError if there was no rebalance then.
        """
        from jaxsim import views

        one = self if key is None else self[key]
        if one._num_lanes > 1:
            raise ValueError("plot_rebalance draws one lane; name one, as in bt.plot_rebalance(0, key=0.05)")
        table = one.decisions
        number = table["rebalance"]
        if isinstance(when, int | np.integer) and not isinstance(when, bool):
            count = int(number.max()) + 1 if len(table) else 0
            rows = table[number == (when + count if when < 0 else when)]
            rows = rows[rows["part"] == 0] if "part" in rows else rows
        else:
            rows = table[table["timestamp"] == when]
        if rows.empty:
            raise KeyError(f"when: there was no rebalance {when!r}; see Backtest.rebalance_index")
        kwargs.setdefault("title", f"Rebalance of {rows['timestamp'].iloc[0]}")
        return views.rebalance(rows, **kwargs)

    def plot_value(self, **kwargs: Any) -> Any:
        """Value with drawdowns underneath, of all lanes."""
        from jaxsim import views

        return views.value_with_drawdown(self.value, **kwargs)

    def plot_metric(self, metric: str = "sharpe_ratio", **kwargs: Any) -> Any:
        """A metric against the swept parameters: a line for one, a heatmap for two.

        metric: name of a metric method, as "sharpe_ratio". Raises ValueError for an unknown one or a single lane.
        """
        from jaxsim import views

        if metric not in ONE_PER_LANE:
            raise ValueError(f"metric: there is no metric {metric!r}; there are {sorted(ONE_PER_LANE)}")
        if self.lanes is None:
            raise ValueError("plot_metric draws a metric against swept parameters; this is a single lane")
        scores: Any = getattr(self, metric)()
        return views.metric_against(scores, **kwargs)
