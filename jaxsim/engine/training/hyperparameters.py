"""Numbers of the training itself, as a learning rate or a temperature, of which each restart has its own."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from jaxsim.engine.base.numerics import Number

#: Hyper-parameters by name: of one restart numbers, of all restarts arrays [restart].
Member = dict[str, Number]


def called_for(member: Member, function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)`, with those hyper-parameters by keyword that it takes."""
    return function(*arguments, **{name: member[name] for name in names_taken(function, member)})


def names_taken(function: Callable, names: Iterable[str]) -> list[str]:
    """Those of the names that are parameters of a function; all of them where it takes any keyword."""
    known = inspect.signature(function).parameters
    takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values())
    return [name for name in names if takes_all or name in known]
