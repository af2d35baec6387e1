"""The same jobs, written for other libraries."""
