"""Policies fitted by gradient ascent: what is trained, on which batches, within which constraints, and how the score
is smoothed.

`jaxsim.fit` and the evaluation verbs import from here. Nothing else in the engine does.
"""
