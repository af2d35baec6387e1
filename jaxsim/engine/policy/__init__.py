"""Policies: when to trade, towards which weights, and how far.

A policy joins an allocator, triggers, stops, a destination and a gate. `bar` asks it at every bar, `schedules` which
bars it may skip. Users build policies from the classes that `jaxsim` exports.
"""
