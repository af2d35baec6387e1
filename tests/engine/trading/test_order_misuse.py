"""Terms of orders that are given wrongly are named, before anything compiles."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxsim as js
from tests.engine.trading.test_order_terms import ASSETS, CLOSE, EQUAL, INDEX, MARKET, NINES, TERMS, WHOLE
from tests.helpers.markets import as_users_run_it, compilations


def grid(*values) -> pd.Index:
    return pd.Index(values, name="x")


BAD: dict[str, tuple[dict, type[Exception], str]] = {}


def bad(name: str, value: Any, error: type[Exception], pattern: str, **others: Any) -> None:
    BAD[f"{name}: {len(BAD)}"] = ({name: value} | others, error, rf"{name}: .*{pattern}")


for term, (low, high) in {
    "fees": (-1.0, 101.0),
    "fixed_fees": (None, None),
    "slippage": (-0.01, 1.0),
    "min_size": (-0.1, None),
    "max_size": (0.0, None),
    "size_granularity": (0.0, None),
    "reject_prob": (-0.1, 1.1),
}.items():
    for outside in (low, high):
        if outside is not None:
            bad(term, outside, ValueError, f"got {outside:g}")
            bad(term, np.array([0.1, outside, 0.1, 0.1]), ValueError, f"got {outside:g}")
            bad(term, pd.DataFrame(0.1, INDEX, ASSETS).assign(C=outside), ValueError, f"got {outside:g}")
            bad(term, grid(0.1, outside), ValueError, f"got {outside:g}")
    if term != "size_granularity":
        bad(term, np.nan, ValueError, "got nan")
    if term != "max_size":
        bad(term, np.inf, ValueError, "got inf")
    bad(term, "1%", TypeError, "expected numbers, got str '1%'")
    bad(term, None, TypeError, "expected numbers")
    bad(term, True, TypeError, "expected numbers, got bool")
    bad(term, grid("a", "b"), TypeError, "must hold numbers")

for flag in ("lock_cash", "allow_partial", "raise_reject", "update_value", "ffill_val_price", "log"):
    bad(flag, 1, TypeError, "expected True or False, got 1")
    bad(flag, "yes", TypeError, "expected True or False, got 'yes'")
    bad(flag, None, TypeError, "expected True or False, got None")
    bad(flag, np.nan, TypeError, "expected True or False, got nan")
    bad(flag, grid(0, 1), TypeError, "expected True or False")

for enum, names in {
    "size_type": r"AMOUNT \(0\), VALUE \(1\), PERCENT \(2\), TARGET_AMOUNT \(3\), .* TARGET_PERCENT \(5\)",
    "direction": r"LONG_ONLY \(0\), SHORT_ONLY \(1\), BOTH \(2\)",
    "call_seq": r"DEFAULT \(0\), REVERSED \(1\), AUTO \(3\)",
}.items():
    for unknown in ("sideways", 9, -1, 1.5, True, np.nan):
        bad(enum, unknown, ValueError, f"expected one of {names}, got {unknown!r}")
    bad(enum, grid("sideways"), ValueError, f"expected one of {names}, got 'sideways'")
    if enum != "call_seq":
        bad(enum, [0, None, 0, 0], ValueError, f"expected one of {names}, got None")
        bad(enum, pd.DataFrame("sideways", INDEX, ASSETS), ValueError, f"expected one of {names}, got 'sideways'")
bad("call_seq", [3, 2, 1, 0], ValueError, "one rule")

for name, value in TERMS.items():
    good = value[0]
    bad(name, pd.Index([good]), ValueError, "name")
    bad(name, pd.Index([good, good], name="x"), ValueError, "repeated")
    bad(name, pd.Series(good, list("WXYZ")), ValueError, "neither")
    bad(name, pd.Series(good, INDEX[1:]), ValueError, "neither")
    bad(name, np.full(2, good), ValueError, "2 values for 4 columns")
    bad(name, np.full((3, 4), good), ValueError, "broadcast")
    bad(name, pd.DataFrame(good, INDEX, list("WXYZ")), ValueError, "columns")
    bad(name, pd.DataFrame(good, INDEX[1:], ASSETS), ValueError, "index")
for name, value in WHOLE.items():
    bad(name, pd.Index(value[:1]), ValueError, "name")
    if name != "call_seq":
        bad(name, np.full(4, value[0]), ValueError, "one value")

bad("size", "all", TypeError, "expected numbers, got str")
bad("size", True, TypeError, "expected numbers, got bool")
for outside in (0.0, -3.0):
    bad("price", outside, ValueError, f"got {outside:g}")
    bad("price", grid(1.0, outside), ValueError, f"got {outside:g}")
    bad("price", pd.DataFrame(outside, INDEX, ASSETS), ValueError, "positive")
bad("price", "close", TypeError, "expected numbers, got str")
bad("policy", EQUAL, ValueError, "size=", size=1.0)
bad("policy", js.Policy(EQUAL), ValueError, "size=", size=1.0)
bad("trigger", js.Threshold(0.05), ValueError, "size=", size=1.0)
bad("min_history", 3, ValueError, "size=", size=1.0)
bad("min_history", grid(0, 3), ValueError, "size=", size=1.0)
bad("policy", None, TypeError, "allocator.*size=", size=None)
bad("direction", "long_only", ValueError, "Policy has one", size=None, policy=js.Policy(EQUAL, direction="both"))
bad("direction", grid("both"), ValueError, "Policy has one", size=None, policy=js.Policy(EQUAL, direction="both"))
bad("size_type", "value", ValueError, "Policy has one", size=None, policy=js.Policy(EQUAL, size_type="value"))
bad("call_seq", "auto", ValueError, "Policy has one", size=None, policy=js.Policy(EQUAL, call_seq="reversed"))


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_named_before_anything_compiles(case):
    options, error, pattern = BAD[case]
    with as_users_run_it(), compilations() as count, pytest.raises(error) as caught:
        js.backtest(CLOSE, **({"size": 0.1} | options))
    caught.match("^" + pattern)
    assert "\n" not in str(caught.value)
    assert count == [0]


@pytest.mark.parametrize(
    ("make", "error", "pattern"),
    [
        (lambda: js.Costs(fixed_fees=np.nan), ValueError, "fixed_fees: .*nan"),
        (lambda: js.Costs(slippage=1.0), ValueError, "slippage: .*< 1, got 1"),
        (lambda: js.Costs(min_size=[0.0, -1.0, 0.0, 0.0]), ValueError, "min_size: .*-1"),
        (lambda: js.Costs(max_size=0.0), ValueError, "max_size: .*> 0"),
        (lambda: js.Costs(size_granularity=0.0), ValueError, "size_granularity: .*> 0"),
        (lambda: js.Costs(reject_prob=2.0), ValueError, "reject_prob: .*<= 1"),
        (lambda: js.Costs(fees=np.ones(2)), ValueError, r"fees: shape \(2,\)"),
        (lambda: js.Costs(fees=True), TypeError, "fees: .*True"),
        (lambda: js.Costs(fees=js.grid(fees=[0.1])), TypeError, "fees: .*vmap"),
        (lambda: js.Costs(slippage=pd.Series(0.1, ASSETS)), TypeError, "slippage: .*Series"),
        (lambda: js.Costs(lock_cash=1), TypeError, "lock_cash: .*True or False, got 1"),
        (lambda: js.Costs(allow_partial=NINES), TypeError, "allow_partial: .*True or False"),
        (lambda: js.Costs(update_value=np.ones(4, bool)), ValueError, "update_value: .*one number"),
        (lambda: js.Policy(EQUAL, direction="sideways"), ValueError, "direction: .*BOTH.*'sideways'"),
        (lambda: js.Policy(EQUAL, direction=NINES), ValueError, "direction: .*BOTH.*9"),
        (lambda: js.Policy(EQUAL, direction=["both"] * 2), ValueError, r"direction: shape \(2,\)"),
        (lambda: js.Policy(EQUAL, size_type=js.grid(x=[1])), TypeError, "size_type: .*vmap"),
        (lambda: js.Policy(EQUAL, call_seq=[0, 1, 3, 0]), ValueError, "call_seq: .*one number"),
    ],
)
def test_misuse_of_the_core(make, error, pattern):
    with as_users_run_it(), jax.enable_x64(True), compilations() as count, pytest.raises(error, match="^" + pattern):
        made = make()
        terms = dict(costs=made) if isinstance(made, js.Costs) else dict(policy=made)
        js.simulate(**(dict(market=MARKET, policy=js.Policy(EQUAL)) | terms))
    assert count == [0]


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize(
    "given",
    [["both"] * 3, pd.DataFrame("sideways", INDEX, ASSETS)],
    ids=["short", "frame"],
)
def test_wrong_fields_of_a_policy_are_named(given, engine):
    with as_users_run_it(), pytest.raises((TypeError, ValueError), match=r"^direction: "):
        js.backtest(CLOSE, js.Policy(EQUAL, direction=given), engine=engine)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_an_allocators_codes_of_another_shape(engine):
    def allocate(obs):
        return js.Allocation(jnp.full(4, 0.2), direction=[0, 1])

    with pytest.raises(ValueError, match=r"allocate.* returned direction of shape \(2,\).*\(4,\)"):
        js.backtest(CLOSE, allocate, engine=engine)


def test_an_allocators_unknown_codes_in_the_reference_engine():
    def allocate(obs):
        return js.Allocation(jnp.full(4, 0.2), direction="sideways")

    with pytest.raises(ValueError, match=r"allocate.* direction: expected one of"):
        js.backtest(CLOSE, allocate, engine="reference")


def test_an_allocators_fractional_code_in_the_compiled_engine():
    with pytest.raises((TypeError, ValueError), match="size_type"):
        js.backtest(CLOSE, lambda obs: js.Allocation(jnp.full(4, 0.2), size_type=jnp.array(4.6)))


@pytest.mark.parametrize("name", ["fees", "lock_cash", "log"])
def test_messages_are_one_line(name):
    given = pd.Series(["x"] * 4, ASSETS) if name == "log" else pd.DataFrame("x", INDEX, ASSETS)
    with pytest.raises(TypeError, match=f"^{name}: ") as caught:
        js.backtest(CLOSE, size=0.1, **{name: given})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", ["x", js.grid(f=[True, False]), 1], ids=["text", "index", "int"])
def test_from_frames_checks_ffill_val_price(given):
    with pytest.raises(TypeError, match=r"^ffill_val_price: "):
        js.Market.from_frames(CLOSE, ffill_val_price=given, dtype=np.float32)


def test_members_of_other_enums():
    with pytest.raises((TypeError, ValueError), match=r"^direction: "):
        js.backtest(CLOSE, size=0.1, direction=js.SizeType.VALUE, engine="reference")


def test_plain_orders_do_not_warn_of_leverage_in_the_reference_engine(recwarn):
    js.backtest(CLOSE, size=0.5, size_type="target_percent", engine="reference")
    assert len(recwarn) == 0
