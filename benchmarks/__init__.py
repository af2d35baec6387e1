"""Benchmarks of jaxsim and of the libraries that it is compared with."""
