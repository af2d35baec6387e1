"""What `jaxsim.fit` needs around the engine's gradient ascent: arguments, data, the log, checkpoints and the result.

`verbs` imports from here.
"""
