"""Random draws: those of `jax.random`, bit for bit, several times faster to compile and to run on a CPU."""

from jaxsim.engine.base.random import fold_in, reject_draws, uniform

__all__ = ["fold_in", "reject_draws", "uniform"]
