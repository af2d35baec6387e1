"""Targets that are computed before any trading: the ranges of bars looked back at, and the engines that call the
allocator on them.

`jaxsim.optimize` imports from here.
"""
