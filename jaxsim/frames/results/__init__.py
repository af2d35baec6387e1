"""What a run returns, as pandas: values, orders, trades, drawdowns, logs, allocations and metrics.

`runs` and `verbs` build these results; users get them from the verbs.
"""
