"""Records: structured arrays of orders, logs, trades and drawdowns, the tables that show them, and what they add up
to by lane. May import the ledger and the paths."""
