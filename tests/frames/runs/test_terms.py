"""`Terms` and the keywords of verbs that pass them on are the keyword arguments of `js.backtest`."""

import inspect
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

import jaxsim as js
from jaxsim.frames.runs.terms import Terms, TermsKeywords, TradingKeywords
from tests.helpers.markets import prices

OTHERS = {"close", "policy"}


def hints(of: Any) -> dict[str, Any]:
    return get_type_hints(of, localns={"Client": object})


def defaults(function: Any) -> dict[str, str]:
    return {name: repr(p.default) for name, p in inspect.signature(function).parameters.items()}


def test_terms_are_the_arguments_of_backtest():
    assert {f.name: repr(f.default) for f in fields(Terms)} == {
        name: default for name, default in defaults(js.backtest).items() if name not in OTHERS
    }
    of_backtest = {name: hint for name, hint in hints(js.backtest).items() if name not in OTHERS | {"return"}}
    assert hints(Terms) == of_backtest
    assert hints(TermsKeywords) == of_backtest
    assert hints(TradingKeywords).items() <= of_backtest.items()


@pytest.mark.parametrize("verb", [js.replay, js.sweep], ids=lambda verb: verb.__name__)
def test_other_verbs_have_the_same_types_and_defaults(verb):
    """Of the arguments that they share with `js.backtest`."""
    shared = defaults(verb).keys() & {f.name for f in fields(Terms)}
    assert len(shared) > 20
    for name in shared:
        assert defaults(verb)[name] == defaults(js.backtest)[name], name
        assert hints(verb)[name] == hints(js.backtest)[name], name


@pytest.mark.parametrize("verb", [js.check_float32, js.sensitivities, js.walk_forward], ids=lambda verb: verb.__name__)
def test_verbs_that_pass_terms_on_name_an_unknown_one(verb):
    close, _ = prices()
    rest = (js.WalkForwardSplits(20, 10),) if verb is js.walk_forward else ()
    with pytest.raises(TypeError, match=r"^fee: js\.backtest has no such argument; did you mean fees\?"):
        verb(close, lambda obs: obs.weights, *rest, fee=0.1)
