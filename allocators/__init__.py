"""Allocators: functions and Modules that answer with target weights. They use nothing of jaxsim but its public face."""

from allocators.host import Host as Host
from allocators.host import host as host
from allocators.learned import SoftmaxWeights as SoftmaxWeights
from allocators.naive import EqualWeight as EqualWeight
from allocators.naive import FixedWeights as FixedWeights
from allocators.naive import RandomWeights as RandomWeights
