"""The parts of a policy, each called alone at one moment of a run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy, allocator_name, ask, initial_state, keeps_state, observes, watch
from jaxsim.engine.policy.triggers import AbstractTrigger, AllOf, AnyOf, as_answer, band_of, excess_of


@dataclass(frozen=True, eq=False)
class Moment:
    """The inputs of a policy at one bar.

    before, after: state of the allocator before and after it has observed the bar.
    """

    obs: Observation
    before: Any
    after: Any

    def with_closes(self, factor: np.ndarray) -> "Moment":
        """The same moment with other closes. factor: [time, asset], on the closes."""
        closes = np.asarray(self.obs.closes) * factor
        closes.flags.writeable = False
        return replace(self, obs=replace(self.obs, closes=closes))


class Witness:
    """An allocator that answers as another one, and records its inputs at every bar.

    seen: `Moment` by bar.      asked: the bars at which it was asked.
    """

    def __init__(self, allocator: Any):
        self.allocator = allocator
        self.seen: dict[int, Moment] = {}
        self.asked: list[int] = []
        self.__qualname__ = allocator_name(allocator)

    def init(self, num_assets: int) -> Any:
        return initial_state(self.allocator, num_assets)

    def observe(self, obs: Observation, state: Any) -> Any:
        after = watch(self.allocator, obs, state)[0]
        self.seen[int(obs.step)] = Moment(obs, state, after)
        return after

    def __call__(self, obs: Observation, state: Any) -> Any:
        self.asked.append(int(obs.step))
        return self.allocator(obs, state) if keeps_state(self.allocator) else (self.allocator(obs), state)


class Frozen(AbstractTrigger):
    """A trigger with fixed answers, for destinations."""

    answer: Any
    beyond: Any
    width: Any

    def __call__(self, obs: Observation) -> Any:
        return self.answer

    def excess(self, obs: Observation) -> Any:
        return self.beyond

    def band(self, obs: Observation, target: Any) -> Any:
        return self.width


@dataclass(frozen=True, eq=False)
class ProbeContext:
    """The answers of the other parts at a moment: the targets, and the answers of the trigger."""

    target: np.ndarray
    trigger: Frozen


def context_of(policy: Policy, moment: Moment) -> ProbeContext:
    obs, trigger = moment.obs, policy.trigger
    target = np.asarray(ask(policy.allocator, obs, moment.after, np.float64)[0].weights)
    return ProbeContext(target, Frozen(trigger(obs), excess_of(trigger, obs), band_of(trigger, obs, target)))


@dataclass(frozen=True, eq=False)
class Question:
    """One part of a policy, and the function that calls it: `ask(policy, moment, context)`."""

    part: str
    ask: Callable[[Policy, Moment, ProbeContext], Any]


def questions(policy: Policy) -> list[Question]:
    """The questions for all parts of a policy; they fit every policy with the same parts."""
    name = f"allocator {allocator_name(policy.allocator)}"
    if hasattr(policy.allocator, "function"):  # one that wraps a function
        name += f"({allocator_name(policy.allocator.function)})"
    questions = [Question(name, lambda p, moment, _: ask(p.allocator, moment.obs, moment.after, np.float64))]
    if observes(policy.allocator):
        questions.append(
            Question(f"{name}.observe", lambda p, moment, _: watch(p.allocator, moment.obs, moment.before))
        )
    for place, trigger in enumerate(_members(policy.trigger)):
        questions.append(_about_trigger(place, allocator_name(trigger)))
    if policy.size_type is None:  # other sizes are traded as they are
        name = f"destination {type(policy.destination).__qualname__}"
        questions.append(Question(name, lambda p, moment, c: p.destination(moment.obs, c.target, c.trigger)))
    return questions


def _about_trigger(place: int, name: str) -> Question:
    def answers(policy: Policy, moment: Moment, context: ProbeContext) -> Any:
        trigger, obs = _members(policy.trigger)[place], moment.obs
        return bool(as_answer(trigger(obs))), excess_of(trigger, obs), band_of(trigger, obs, context.target)

    return Question(f"trigger {name}", answers)


def _members(trigger: Any) -> list[Any]:
    """The single triggers inside a composed one."""
    if isinstance(trigger, AllOf | AnyOf):
        return [*_members(trigger.left), *_members(trigger.right)]
    return [trigger]
