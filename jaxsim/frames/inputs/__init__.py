"""What a user hands in, checked and turned into arrays: prices, labels, groups, swept parameters, dates, random keys,
features.

All of `frames` may import from here.
"""
