"""Pictures and the HTML report: labelled pandas in, Plotly figures out.

Nothing here knows of `Backtest` or JAX, and importing it does not import Plotly, which is an extra: a
function that draws raises an ImportError with the pip command where Plotly is missing. Durations are
whatever the index says; weights, values and drawdowns are plain fractions and currency as handed in.
Labels are shown as they are: markup in them is escaped, never obeyed.
"""

from jaxsim.views.history import training_history
from jaxsim.views.metric import metric_against
from jaxsim.views.overfitting import overfitting
from jaxsim.views.rebalance import rebalance
from jaxsim.views.report import write_report
from jaxsim.views.value import drawdown, value_with_drawdown
from jaxsim.views.walk_forward import splits, walk_forward
from jaxsim.views.weights import stacked_targets, stacked_weights

__all__ = [
    "drawdown",
    "metric_against",
    "overfitting",
    "rebalance",
    "splits",
    "stacked_targets",
    "stacked_weights",
    "training_history",
    "value_with_drawdown",
    "walk_forward",
    "write_report",
]
