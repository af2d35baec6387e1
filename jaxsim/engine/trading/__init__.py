"""Markets, accounts and costs; how an order fills, and how the orders of one rebalance fill together.

Nothing here knows why an order is placed. `bar` and `policy` import from here.
"""
