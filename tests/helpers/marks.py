"""Which cases of a test are slow: those that `bash scripts/test` leaves to `bash scripts/test --all`."""

from collections.abc import Callable, Collection, Iterable

import pytest


def some_slow(values: Iterable, slow: Collection, name: Callable = str) -> list:
    """Arguments of `pytest.mark.parametrize`: `values`, of which those in `slow` are marked; their ids by `name`."""
    return [pytest.param(x, id=name(x), marks=[pytest.mark.slow] * (x in slow)) for x in values]
