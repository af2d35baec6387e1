"""The machine: files and locks, digests, memory, worker processes, progress, compiled programs kept on disk.

All of `frames` may import from here. Nothing here knows of finance.
"""
