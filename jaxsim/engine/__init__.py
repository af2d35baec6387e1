"""The simulator on arrays: prices and policies in, values and orders out. No pandas, and nothing optional.

A user reaches what is here through `jaxsim`; `jaxsim.frames` imports the modules. Each folder imports only from those
below it: `training`, `export` and `score`; `simulate`; `adjoints`; `schedules`; `bar`; `policy` and `metrics`;
`trading`; `base`.
"""
