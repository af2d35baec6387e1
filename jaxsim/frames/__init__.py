"""The pandas face: labelled prices in, labelled results out. A user reaches it through `jaxsim`.

Each folder imports only from those below it: `estimators`; `verbs`; `sweeps`, `plans` and `evaluation`; `runs`;
`training` and `results`; `inputs` and `system`. All may import the engine.
"""
