"""One run: the arguments of a verb joined into a job, and the job executed on an engine, in this process or in others.

`verbs`, `sweeps`, `plans` and `evaluation` import from here.
"""
