"""Benchmarks: speed and memory of jaxsim, beside other libraries."""
