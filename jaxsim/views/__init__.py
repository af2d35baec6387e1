"""Plots and the HTML report: labelled pandas in, Plotly figures out.

This package imports nothing of jaxsim's engine or frames, and importing it does not import Plotly, which is an extra. A
function that draws raises ImportError with the pip command if Plotly is missing. Weights and drawdowns are fractions,
values are currency. Markup in labels is escaped.
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
