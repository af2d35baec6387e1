"""Formulas of performance: from returns after a run, or bar by bar while it runs.

`jaxsim.metrics` is their public face. They take arrays and know nothing of policies or orders.
"""
