"""Runs of many combinations: cut into chunks, reduced to metrics, stored on disk, joined to one table.

`jaxsim.sweep` imports from here.
"""
