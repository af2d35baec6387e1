"""Portfolio rebalancing in JAX: path-dependent, differentiable, thousands of lanes in one compiled program."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from jaxsim import datasets as datasets
from jaxsim import metrics as metrics
from jaxsim import random as random
from jaxsim import reference as reference
from jaxsim import views as views
from jaxsim.engine.account import Account as Account
from jaxsim.engine.adjoint import AtEvents as AtEvents
from jaxsim.engine.adjoint import Checkpointed as Checkpointed
from jaxsim.engine.allocation import Allocation as Allocation
from jaxsim.engine.batches import AbstractBatch as AbstractBatch
from jaxsim.engine.batches import Paths as Paths
from jaxsim.engine.batches import Windows as Windows
from jaxsim.engine.block_length import optimal_block_length as optimal_block_length
from jaxsim.engine.bootstrap import bootstrap as bootstrap
from jaxsim.engine.checks import AbstractCheck as AbstractCheck
from jaxsim.engine.checks import StopLoss as StopLoss
from jaxsim.engine.checks import TakeProfit as TakeProfit
from jaxsim.engine.constraints import AbstractConstraint as AbstractConstraint
from jaxsim.engine.constraints import Box as Box
from jaxsim.engine.constraints import Positive as Positive
from jaxsim.engine.constraints import Simplex as Simplex
from jaxsim.engine.costs import Costs as Costs
from jaxsim.engine.destinations import AbstractDestination as AbstractDestination
from jaxsim.engine.destinations import Fraction as Fraction
from jaxsim.engine.destinations import OnlyBreached as OnlyBreached
from jaxsim.engine.destinations import SpreadOver as SpreadOver
from jaxsim.engine.destinations import ToEdge as ToEdge
from jaxsim.engine.destinations import ToTarget as ToTarget
from jaxsim.engine.destinations import TurnoverCap as TurnoverCap
from jaxsim.engine.drift import HalfL1Drift as HalfL1Drift
from jaxsim.engine.drift import L2Drift as L2Drift
from jaxsim.engine.drift import Threshold as Threshold
from jaxsim.engine.drift import TrackingError as TrackingError
from jaxsim.engine.enums import CallSeq as CallSeq
from jaxsim.engine.enums import Direction as Direction
from jaxsim.engine.enums import OrderSide as OrderSide
from jaxsim.engine.enums import SizeType as SizeType
from jaxsim.engine.export import Program as Program
from jaxsim.engine.export import export as export
from jaxsim.engine.gap import Gap as Gap
from jaxsim.engine.gap import gap as gap
from jaxsim.engine.gates import AbstractGate as AbstractGate
from jaxsim.engine.gates import Hard as Hard
from jaxsim.engine.gates import Sigmoid as Sigmoid
from jaxsim.engine.gates import StraightThrough as StraightThrough
from jaxsim.engine.host import call_host as call_host
from jaxsim.engine.look_ahead import LookAhead as LookAhead
from jaxsim.engine.market import Market as Market
from jaxsim.engine.observation import Observation as Observation
from jaxsim.engine.observation import Window as Window
from jaxsim.engine.policy import Policy as Policy
from jaxsim.engine.save import Save as Save
from jaxsim.engine.save import Simulation as Simulation
from jaxsim.engine.schedule import Scan as Scan
from jaxsim.engine.score import score as score
from jaxsim.engine.simulate import simulate as simulate
from jaxsim.engine.smoothing import SAMPLES as SAMPLES
from jaxsim.engine.smoothing import smoothed as smoothed
from jaxsim.engine.status import LaneFault as LaneFault
from jaxsim.engine.status import OrderStatus as OrderStatus
from jaxsim.engine.status import OrderStatusInfo as OrderStatusInfo
from jaxsim.engine.step import Event as Event
from jaxsim.engine.step import Lane as Lane
from jaxsim.engine.step import step as step
from jaxsim.engine.triggers import AbstractTrigger as AbstractTrigger
from jaxsim.engine.triggers import Always as Always
from jaxsim.engine.triggers import AtBars as AtBars
from jaxsim.engine.triggers import Every as Every
from jaxsim.engine.triggers import EveryN as EveryN
from jaxsim.engine.triggers import Never as Never
from jaxsim.engine.triggers import On as On
from jaxsim.errors import AllocationError as AllocationError
from jaxsim.errors import AllocatorError as AllocatorError
from jaxsim.errors import LookAheadError as LookAheadError
from jaxsim.frames import features as features
from jaxsim.frames import market as _market  # noqa: F401  attaches Market.from_frames
from jaxsim.frames.allocations import Allocations as Allocations
from jaxsim.frames.backtest import Backtest as Backtest
from jaxsim.frames.books import from_records as from_records
from jaxsim.frames.drawdowns import DrawdownStatus as DrawdownStatus
from jaxsim.frames.fit import fit as fit
from jaxsim.frames.fitted import Fitted as Fitted
from jaxsim.frames.float32 import check_float32 as check_float32
from jaxsim.frames.lanes import grid as grid
from jaxsim.frames.lanes import zipped as zipped
from jaxsim.frames.overfitting import Overfitting as Overfitting
from jaxsim.frames.overfitting import deflated_sharpe_ratio as deflated_sharpe_ratio
from jaxsim.frames.overfitting import probability_of_overfitting as probability_of_overfitting
from jaxsim.frames.plans import optimize as optimize
from jaxsim.frames.policy_files import load_policy as load_policy
from jaxsim.frames.policy_files import save_policy as save_policy
from jaxsim.frames.probe import check_no_lookahead as check_no_lookahead
from jaxsim.frames.programs import cache_programs as cache_programs
from jaxsim.frames.run import backtest as backtest
from jaxsim.frames.run import replay as replay
from jaxsim.frames.schedules import index_points as index_points
from jaxsim.frames.schedules import index_ranges as index_ranges
from jaxsim.frames.sensitivities import sensitivities as sensitivities
from jaxsim.frames.splits import CombinatorialSplits as CombinatorialSplits
from jaxsim.frames.splits import PurgedSplits as PurgedSplits
from jaxsim.frames.splits import WalkForwardSplits as WalkForwardSplits
from jaxsim.frames.sweep import sweep as sweep
from jaxsim.frames.trades import TradeDirection as TradeDirection
from jaxsim.frames.trades import TradeStatus as TradeStatus
from jaxsim.frames.walk_forward import WalkForward as WalkForward
from jaxsim.frames.walk_forward import walk_forward as walk_forward

if TYPE_CHECKING:
    from jaxsim.frames.estimator import PortfolioEstimator as PortfolioEstimator
    from jaxsim.frames.skfolio_estimator import SkfolioEstimator as SkfolioEstimator

__version__ = "0.1.0"

#: What needs a library that may be missing, and the module that imports it.
_LAZY = {"PortfolioEstimator": "jaxsim.frames.estimator", "SkfolioEstimator": "jaxsim.frames.skfolio_estimator"}


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(_import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'jaxsim' has no attribute {name!r}")
