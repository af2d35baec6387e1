"""Portfolio rebalancing in JAX: path-dependent, differentiable, thousands of lanes in one compiled program."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from jaxsim import datasets as datasets
from jaxsim import enums as enums
from jaxsim import metrics as metrics
from jaxsim import random as random
from jaxsim import reference as reference
from jaxsim import views as views
from jaxsim.engine.adjoints.at_events import AtEvents as AtEvents
from jaxsim.engine.adjoints.checkpointed import Checkpointed as Checkpointed
from jaxsim.engine.bar.lane_state import LaneState as LaneState
from jaxsim.engine.bar.lanes import LaneInputs as LaneInputs
from jaxsim.engine.bar.simulation import Save as Save
from jaxsim.engine.bar.simulation import Simulation as Simulation
from jaxsim.engine.bar.step import BarOutcome as BarOutcome
from jaxsim.engine.bar.step import Rebalance as Rebalance
from jaxsim.engine.bar.step import observe as observe
from jaxsim.engine.bar.step import trade_bar as trade_bar
from jaxsim.engine.base.enums import CallSeq as CallSeq
from jaxsim.engine.base.enums import Direction as Direction
from jaxsim.engine.base.enums import OrderSide as OrderSide
from jaxsim.engine.base.enums import SizeType as SizeType
from jaxsim.engine.environment import Environment as Environment
from jaxsim.engine.environment import EnvironmentState as EnvironmentState
from jaxsim.engine.environment import environment as environment
from jaxsim.engine.export import Program as Program
from jaxsim.engine.export import export as export
from jaxsim.engine.policy.allocation import Allocation as Allocation
from jaxsim.engine.policy.destinations import AbstractDestination as AbstractDestination
from jaxsim.engine.policy.destinations import Fraction as Fraction
from jaxsim.engine.policy.destinations import OnlyBreached as OnlyBreached
from jaxsim.engine.policy.destinations import SpreadOver as SpreadOver
from jaxsim.engine.policy.destinations import ToEdge as ToEdge
from jaxsim.engine.policy.destinations import ToTarget as ToTarget
from jaxsim.engine.policy.destinations import TurnoverCap as TurnoverCap
from jaxsim.engine.policy.drift_triggers import HalfL1Drift as HalfL1Drift
from jaxsim.engine.policy.drift_triggers import L2Drift as L2Drift
from jaxsim.engine.policy.drift_triggers import Threshold as Threshold
from jaxsim.engine.policy.drift_triggers import TrackingError as TrackingError
from jaxsim.engine.policy.gates import AbstractGate as AbstractGate
from jaxsim.engine.policy.gates import Hard as Hard
from jaxsim.engine.policy.gates import Passage as Passage
from jaxsim.engine.policy.gates import Sigmoid as Sigmoid
from jaxsim.engine.policy.gates import StraightThrough as StraightThrough
from jaxsim.engine.policy.host_callback import call_host as call_host
from jaxsim.engine.policy.observation import Observation as Observation
from jaxsim.engine.policy.observation import Window as Window
from jaxsim.engine.policy.policy import Policy as Policy
from jaxsim.engine.policy.stops import AbstractStop as AbstractStop
from jaxsim.engine.policy.stops import Entries as Entries
from jaxsim.engine.policy.stops import StopLoss as StopLoss
from jaxsim.engine.policy.stops import StopRules as StopRules
from jaxsim.engine.policy.stops import TakeProfit as TakeProfit
from jaxsim.engine.policy.triggers import AbstractTrigger as AbstractTrigger
from jaxsim.engine.policy.triggers import Always as Always
from jaxsim.engine.policy.triggers import AtBars as AtBars
from jaxsim.engine.policy.triggers import Every as Every
from jaxsim.engine.policy.triggers import EveryBars as EveryBars
from jaxsim.engine.policy.triggers import Never as Never
from jaxsim.engine.policy.triggers import On as On
from jaxsim.engine.schedules.bar_by_bar import Scan as Scan
from jaxsim.engine.schedules.next_event import NextEvent as NextEvent
from jaxsim.engine.score import score as score
from jaxsim.engine.simulate import lane_inputs as lane_inputs
from jaxsim.engine.simulate import simulate as simulate
from jaxsim.engine.trading.account import Account as Account
from jaxsim.engine.trading.account import Holdings as Holdings
from jaxsim.engine.trading.costs import Costs as Costs
from jaxsim.engine.trading.market import Market as Market
from jaxsim.engine.trading.rebalance import Fills as Fills
from jaxsim.engine.trading.status import LaneFault as LaneFault
from jaxsim.engine.trading.status import LaneStatus as LaneStatus
from jaxsim.engine.trading.status import OrderStatus as OrderStatus
from jaxsim.engine.trading.status import OrderStatusInfo as OrderStatusInfo
from jaxsim.engine.training.bootstrap import bootstrap as bootstrap
from jaxsim.engine.training.bootstrap import optimal_block_length as optimal_block_length
from jaxsim.engine.training.constraints import AbstractConstraint as AbstractConstraint
from jaxsim.engine.training.constraints import Box as Box
from jaxsim.engine.training.constraints import Simplex as Simplex
from jaxsim.engine.training.minibatches import AbstractBatch as AbstractBatch
from jaxsim.engine.training.minibatches import PathBatch as PathBatch
from jaxsim.engine.training.minibatches import WindowBatch as WindowBatch
from jaxsim.engine.training.smoothing import smoothed as smoothed
from jaxsim.errors import AllocationError as AllocationError
from jaxsim.errors import AllocatorError as AllocatorError
from jaxsim.errors import JaxsimError as JaxsimError
from jaxsim.errors import LookAheadError as LookAheadError
from jaxsim.errors import OrderError as OrderError
from jaxsim.errors import RejectedOrderError as RejectedOrderError
from jaxsim.frames.evaluation.splits import CombinatorialSplits as CombinatorialSplits
from jaxsim.frames.evaluation.splits import PurgedSplits as PurgedSplits
from jaxsim.frames.evaluation.splits import WalkForwardSplits as WalkForwardSplits
from jaxsim.frames.inputs import features as features
from jaxsim.frames.inputs import market as _market  # noqa: F401  attaches Market.from_frames
from jaxsim.frames.inputs.calendar import index_points as index_points
from jaxsim.frames.inputs.calendar import index_ranges as index_ranges
from jaxsim.frames.inputs.labels import ByAsset as ByAsset
from jaxsim.frames.inputs.sweep_axes import grid as grid
from jaxsim.frames.inputs.sweep_axes import zipped as zipped
from jaxsim.frames.results.allocations import Allocations as Allocations
from jaxsim.frames.results.backtest import Backtest as Backtest
from jaxsim.frames.results.records.drawdowns import DrawdownTable as DrawdownTable
from jaxsim.frames.results.records.logs import LogTable as LogTable
from jaxsim.frames.results.records.orders import OrderTable as OrderTable
from jaxsim.frames.results.records.record_tables import RecordTable as RecordTable
from jaxsim.frames.results.records.trades import TradeTable as TradeTable
from jaxsim.frames.system.program_cache import cache_programs as cache_programs
from jaxsim.frames.training import policy_file as _policy_file  # noqa: F401  attaches Policy.save and Policy.load
from jaxsim.frames.training.fitted import Fitted as Fitted
from jaxsim.frames.training.gradient_check import GradientCheck as GradientCheck
from jaxsim.frames.verbs.backtest import backtest as backtest
from jaxsim.frames.verbs.check_float32 import check_float32 as check_float32
from jaxsim.frames.verbs.check_gradient import check_gradient as check_gradient
from jaxsim.frames.verbs.check_no_lookahead import check_no_lookahead as check_no_lookahead
from jaxsim.frames.verbs.fit import fit as fit
from jaxsim.frames.verbs.from_records import from_records as from_records
from jaxsim.frames.verbs.optimize import optimize as optimize
from jaxsim.frames.verbs.overfitting import Overfitting as Overfitting
from jaxsim.frames.verbs.overfitting import deflate_sharpe_ratio as deflate_sharpe_ratio
from jaxsim.frames.verbs.overfitting import probability_of_overfitting as probability_of_overfitting
from jaxsim.frames.verbs.replay import replay as replay
from jaxsim.frames.verbs.sensitivities import sensitivities as sensitivities
from jaxsim.frames.verbs.sweep import sweep as sweep
from jaxsim.frames.verbs.walk_forward import WalkForward as WalkForward
from jaxsim.frames.verbs.walk_forward import walk_forward as walk_forward
from jaxsim.version import VERSION as __version__  # noqa: F401

if TYPE_CHECKING:
    from jaxsim.frames.estimators.scikit_learn import PortfolioEstimator as PortfolioEstimator
    from jaxsim.frames.estimators.skfolio import SkfolioEstimator as SkfolioEstimator

#: What needs a library that may be missing, and the module that imports it.
_LAZY = {
    "PortfolioEstimator": "jaxsim.frames.estimators.scikit_learn",
    "SkfolioEstimator": "jaxsim.frames.estimators.skfolio",
}


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(_import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'jaxsim' has no attribute {name!r}")
