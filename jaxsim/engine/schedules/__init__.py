"""How the bars of a run are visited: one after the other, from event to event, or at recorded dates only.

All schedules give the same numbers. `simulate`, `score` and `adjoints` import them; `xla_kernel` alone rests on how XLA
compiles.
"""
