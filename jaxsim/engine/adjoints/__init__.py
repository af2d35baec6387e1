"""How a simulation is differentiated: chunk by chunk from checkpoints, or from one rebalance to the next.

`simulate` and `score` import from here; users pass an adjoint to them.
"""
