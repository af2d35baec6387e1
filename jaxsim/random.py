"""Draws for allocators: those of `jax.random`, bit for bit, compiled and run several times faster on a CPU."""

from jaxsim.engine.base.random import fold_in, uniform

__all__ = ["fold_in", "uniform"]
