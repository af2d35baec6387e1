"""The jobs of the benchmarks, written for other libraries."""
