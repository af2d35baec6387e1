"""Allocators: Modules that return target weights. They import only public jaxsim (`import jaxsim as js`)."""

from allocators.constraints import Constraints as Constraints
from allocators.covariance import ExponentialCovariance as ExponentialCovariance
from allocators.covariance import LedoitWolf as LedoitWolf
from allocators.covariance import SampleCovariance as SampleCovariance
from allocators.hierarchical import HierarchicalRiskParity as HierarchicalRiskParity
from allocators.host import Host as Host
from allocators.host import host as host
from allocators.learned import MLP as MLP
from allocators.learned import Attention as Attention
from allocators.learned import Linear as Linear
from allocators.learned import Recurrent as Recurrent
from allocators.learned import SoftmaxWeights as SoftmaxWeights
from allocators.mean_variance import MaximumSharpe as MaximumSharpe
from allocators.mean_variance import MeanVariance as MeanVariance
from allocators.mean_variance import MinimumVariance as MinimumVariance
from allocators.momentum import ExponentiatedGradient as ExponentiatedGradient
from allocators.momentum import Momentum as Momentum
from allocators.naive import EqualWeight as EqualWeight
from allocators.naive import FixedWeights as FixedWeights
from allocators.naive import RandomWeights as RandomWeights
from allocators.random_search import RandomSearchSharpe as RandomSearchSharpe
from allocators.risk import InverseVolatility as InverseVolatility
from allocators.risk import RiskParity as RiskParity
from allocators.risk import risk_contributions as risk_contributions
