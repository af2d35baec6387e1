"""One bar: observe, decide, rebalance. With the state that a lane carries from bar to bar and what a run returns.

Every loop over bars, in `schedules` and in `adjoints`, imports the bar from `step`, where it is stated once.
"""
