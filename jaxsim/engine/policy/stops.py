"""Rules that close positions between the dates of a plan. They look at every bar. A position that a rule has closed
stays closed until the next recorded date."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxsim.engine.base.arrays import Amount, Array, namespace, where
from jaxsim.engine.base.fields import GAIN, LOSS, bounded
from jaxsim.engine.base.numerics import ABS_TOL, Number, at_bar
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.triggers import AtBars
from jaxsim.engine.trading.account import Holdings
from jaxsim.engine.trading.rebalance import Fills


class Entries(eqx.Module):
    """The entries that stop rules compare the present with.

    price: mean entry price of each position, currency per unit: of its purchases, or of its sales if it is short. With
        slippage, without fees. NaN where there is no position.
    value: of the account at the last recorded date, currency.
    is_out: the assets that a stop rule has closed since that date.
    """

    price: Float[Array, " asset"]
    value: Amount
    is_out: Bool[Array, " asset"]

    @classmethod
    def none(cls, num_assets: int, dtype: Any) -> "Entries":
        return cls(jnp.full(num_assets, jnp.nan, dtype), jnp.asarray(jnp.nan, dtype), jnp.zeros(num_assets, bool))

    def after(self, before: Holdings, after: Holdings, fills: Fills) -> "Entries":
        """The entries after a rebalance, with the new mean prices."""
        old, new, size = before.units, after.units, jnp.abs(fills.trade)
        is_larger = (jnp.sign(old) == jnp.sign(new)) & (jnp.abs(new) > jnp.abs(old))
        paid = where(size > 0, fills.price, 0.0) * size
        known = where(jnp.isnan(self.price), 0.0, self.price)
        total = jnp.abs(old) + size
        mean = (jnp.abs(old) * known + paid) / where(total > 0, total, 1.0)
        is_new = (new != 0) & (jnp.sign(old) != jnp.sign(new))
        price = where(is_new, fills.price, where(is_larger, mean, self.price))
        return Entries(where(new == 0, jnp.nan, price), self.value, self.is_out)


class AbstractStop(eqx.Module):
    """A rule that says which positions to close. Subclass it for a rule of your own."""

    @abc.abstractmethod
    def __call__(self, obs: Observation, entries: Entries) -> Bool[Array, " asset"]:
        """Which assets to close at this bar, bool [asset]. The answer for assets without a position is not used."""


_OF = ("asset", "portfolio")


def _of(value: Any) -> str:
    if value not in _OF:
        raise ValueError(f"of: expected 'asset' or 'portfolio', got {value!r}")
    return value


def _gain(stop: Any, obs: Observation, entries: Entries) -> Float[Array, " asset"]:
    """Gain of each position since its entry, or of the account since the last recorded date; a fraction."""
    xp = namespace(obs.units)
    if stop.of == "portfolio":
        return xp.broadcast_to(xp.asarray(obs.value / entries.value - 1), obs.units.shape)
    return xp.sign(obs.units) * (obs.val_price / entries.price - 1)


class StopLoss(AbstractStop):
    """Close positions that have lost `loss` or more: `price / entry price - 1 <= -loss` for a long position, the
    reverse for a short one. The limit has a tolerance of 1e-12, so that a fall from 10 to 9 is a loss of 0.1.

    loss: a fraction of the entry price, > 0; a number, one per asset, or [time or 1, asset or 1]; or a named index to
        sweep.
    of: "asset": each position by its own mean entry price, at the valuation price of the bar; "portfolio": all
        positions, by the value of the account since the last recorded date.

    Raises ValueError that begins with `loss` or `of`.
    """

    loss: Number = bounded("loss", LOSS, by_bar_and_asset=True)
    of: str = eqx.field(static=True, default="asset", kw_only=True, converter=_of)

    def __call__(self, obs: Observation, entries: Entries) -> Bool[Array, " asset"]:
        return _gain(self, obs, entries) <= -at_bar(self.loss, obs.step) + ABS_TOL


class TakeProfit(AbstractStop):
    """Close positions that have gained `gain` or more: `price / entry price - 1 >= gain` for a long position, the
    reverse for a short one, with a tolerance of 1e-12.

    gain: a fraction of the entry price, > 0; shapes as `StopLoss.loss`.      of: as `StopLoss.of`.

    Raises ValueError that begins with `gain` or `of`.
    """

    gain: Number = bounded("gain", GAIN, by_bar_and_asset=True)
    of: str = eqx.field(static=True, default="asset", kw_only=True, converter=_of)

    def __call__(self, obs: Observation, entries: Entries) -> Bool[Array, " asset"]:
        return _gain(self, obs, entries) >= at_bar(self.gain, obs.step) - ABS_TOL


class StopRules(eqx.Module):
    """The stop rules of a policy.

    due: true at the recorded dates.
    rules: a position is closed when any of these rules says so.
    """

    due: AtBars
    rules: tuple[AbstractStop, ...]

    def closes(self, obs: Observation, entries: Entries) -> Bool[Array, " asset"]:
        """Which positions to close now."""
        wants = [rule(obs, entries) for rule in self.rules]
        return (obs.units != 0) & sum(wants[1:], start=wants[0])

    def sizes(
        self, obs: Observation, entries: Entries, asked: Float[Array, " asset"], is_rebalance: Any
    ) -> tuple[Float[Array, " asset"], Bool[Array, " asset"], Bool[Array, " asset"]]:
        """The targets with those of closed assets set to zero; the assets that are out afterwards; the assets that are
        closed at this bar, each [asset].

        is_rebalance: whether a date or a trigger asks for a rebalance, and not only a stop rule.
        """
        xp = namespace(obs.units)
        is_due, closing = self.due(obs), self.closes(obs, entries)
        is_out = xp.where(is_due, False, entries.is_out | closing)
        rest = xp.where(is_rebalance, asked, xp.nan)
        sizes = xp.where(is_out & (closing | is_rebalance), 0.0, rest)
        return sizes, is_out, closing & ~is_due
