"""Arithmetic that decides is rounded as IEEE says, inside fused loops too; snapping is transparent to gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsim.engine.base.numerics import add, dot, eq, le, product, quotient, snap
from jaxsim.engine.trading.call_sequence import PAIRWISE_ASSETS, CallOrder


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def operands(seed, size=4000):
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.5, 2.0, size) * 10.0 ** rng.integers(-3, 6, size) for _ in range(3))


@pytest.mark.parametrize("seed", range(4))
def test_product_is_not_contracted_into_what_it_is_added_to(seed):
    """Fails if XLA fuses the multiplication with the addition: one rounding instead of two."""
    a, b, c = operands(seed)
    fused = jax.jit(lambda a, b, c: (product(a, b) + c, product(a, b) - c, c - product(a, b)))(a, b, c)
    for ours, exact in zip(fused, (a * b + c, a * b - c, c - a * b), strict=True):
        np.testing.assert_array_equal(ours, exact)


@pytest.mark.parametrize("constant", [0.2, 1 / 3, 0.6])
def test_constants_are_not_contracted_either(constant):
    """A weight that is known when the program is compiled must not open the select that guards the product."""
    a, b, c = operands(5)
    weight = np.full(a.shape, constant)
    ours = jax.jit(lambda a, b, c: (product(weight, a) - product(b, c), product(a, weight) - product(b, c)))(a, b, c)
    for one in ours:
        np.testing.assert_array_equal(one, weight * a - b * c)
    merged = jax.jit(lambda a, b: quotient(quotient(jnp.asarray(weight), a), b))(a, b)
    np.testing.assert_array_equal(merged, weight / a / b)


def test_contraction_is_real():
    """The trap that `product` avoids; if this fails, XLA has changed and `product` may become a plain `*`."""
    a, b, c = operands(0)
    as_for_users = {"xla_backend_optimization_level": 3}
    plain = jax.jit(lambda a, b, c: a * b + c, compiler_options=as_for_users)(a, b, c)
    assert (np.asarray(plain) != a * b + c).any()


@pytest.mark.parametrize("seed", range(4))
def test_quotient_is_not_merged_with_another_division(seed):
    a, b, c = operands(seed)
    ours = jax.jit(lambda a, b, c: quotient(quotient(a, b), c))(a, b, c)
    np.testing.assert_array_equal(ours, a / b / c)
    np.testing.assert_array_equal(jax.jit(lambda a: quotient(a, jnp.float64(1.005)))(a), a / 1.005)


def test_division_rewrites_are_real():
    a, b, c = operands(0)
    assert (np.asarray(jax.jit(lambda a, b, c: a / b / c)(a, b, c)) != a / b / c).any()


@pytest.mark.parametrize("num_assets", [1, 3, 16, 17, 40])
def test_dot_sums_left_to_right_inside_a_loop(num_assets):
    rng = np.random.default_rng(num_assets)
    units, prices = rng.normal(size=(50, num_assets)) * 1e5, rng.uniform(0.1, 9e3, (50, num_assets))
    units[rng.random(units.shape) < 0.2] = 0.0
    prices[(units == 0) & (rng.random(units.shape) < 0.5)] = np.nan
    cash = rng.uniform(0, 1e6, 50)
    ours = jax.jit(lambda *rows: lax.map(lambda row: dot(*row), rows))(cash, units, prices)
    for start, x, y, total in zip(cash, units, prices, np.asarray(ours), strict=True):
        for xi, yi in zip(x, y, strict=True):
            start = start + (xi * yi if xi != 0 else 0.0)
        assert start == total


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1.0, 1.0 + 9e-10, True),
        (1.0, 1.0 + 2e-9, False),
        (0.0, 9e-13, True),
        (0.0, 2e-12, False),
        (np.inf, np.inf, False),
        (1.0, np.inf, False),
        (np.nan, np.nan, False),
        (1e7, 1e7 + 5e-3, True),
        (1e7, 1e7 + 2e-2, False),
    ],
)
def test_eq(a, b, equal):
    assert bool(eq(jnp.float64(a), jnp.float64(b))) is equal
    assert bool(eq(jnp.float64(b), jnp.float64(a))) is equal
    assert bool(le(jnp.float64(a), jnp.float64(b))) is (equal or a < b)


@pytest.mark.parametrize(
    ("a", "b", "total"),
    [
        (100.0, -100.0 * (1 + 5e-10), 0.0),
        (100.0, -99.0, 1.0),
        (0.0, 5e-13, 0.0),
        (4e-13, 5e-13, 0.0),
        (1.0, 1.0, 2.0),
        (0.0, 3.0, 3.0),
        (0.0, 0.0, 0.0),
    ],
)
def test_add_snaps_what_cancels(a, b, total):
    assert float(add(jnp.float64(a), jnp.float64(b))) == total


def test_snapping_is_transparent_to_gradients():
    hundred = jnp.float64(100.0)
    assert jax.grad(lambda x: add(x, -hundred))(hundred) == 1.0
    assert jax.grad(lambda x: add(hundred, -x))(hundred) == -1.0
    assert jax.grad(snap)(jnp.float64(1e-13)) == 1.0
    assert jax.grad(product, argnums=0)(jnp.float64(0.0), jnp.float64(7.0)) == 7.0


def test_a_missing_price_does_not_poison_a_gradient():
    assert product(jnp.float64(0.0), jnp.float64(np.nan)) == 0.0
    gradients = jax.grad(product, argnums=(0, 1))(jnp.float64(0.0), jnp.float64(np.nan))
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("num_assets", [2, 5, PAIRWISE_ASSETS, PAIRWISE_ASSETS + 1, 30])
def test_call_order_is_a_stable_sort_with_nan_last_and_reversed(num_assets):
    rng = np.random.default_rng(num_assets)
    for _ in range(30):
        values = np.round(rng.normal(0, 2, num_assets))
        values[rng.random(num_assets) < 0.2] = np.nan
        order = CallOrder(jnp.asarray(values))
        known, unknown = np.flatnonzero(~np.isnan(values)), np.flatnonzero(np.isnan(values))
        sequence = [*sorted(known, key=lambda n: (values[n], n)), *unknown[::-1]]
        np.testing.assert_array_equal(np.argsort(order.rank), sequence)
        np.testing.assert_array_equal(order.sort(jnp.asarray(values)), values[sequence])
        np.testing.assert_array_equal(order.unsort(order.sort(jnp.arange(num_assets))), np.arange(num_assets))


def test_dust_is_snapped():
    np.testing.assert_array_equal(snap(jnp.array([1e-12, -9e-13, 2e-12, 0.0])), [0.0, 0.0, 2e-12, 0.0])
