"""The numbers of a stack: proposed by Optuna's tree of Parzen estimators, measured and dropped by block as levers are.

Proposals follow from the seed and from what was measured, so a resumed search proposes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from steelyard.levers.effects import resolved_value
from steelyard.tuning.race import Races
from steelyard.tuning.stack import Stack

if TYPE_CHECKING:
    import optuna

USUAL: Mapping[str, tuple[int, int]] = {
    "max_num_seqs": (1, 1024),
    "max_num_batched_tokens": (256, 32768),
    "block_size": (16, 128),
}
"""Numeric arguments that are searched unless told otherwise, as powers of two between these; an engine that refuses a
value says so when it starts.
"""
AROUND = 8
"""How far from the present value, as a factor: most of a range is never asked for."""


def spaces(given: Mapping[str, Sequence[int]] | None, resolved: Mapping[str, Any]) -> dict[str, list[int]]:
    """Values of each number, by default of the usual ones: those given, else powers of two around what the engine
    resolved. A number that the engine does not tell is left out unless its values are given.
    """
    found: dict[str, list[int]] = {}
    for name, values in (dict.fromkeys(USUAL, ()) if given is None else given).items():
        now = resolved_value(resolved, name, {})
        if values:
            found[name] = sorted(set(values))
        elif isinstance(now, int) and now > 0:
            low, high = USUAL[name]
            powers = [2**power for power in range(16) if max(low, now / AROUND) <= 2**power <= min(high, now * AROUND)]
            found[name] = sorted({*powers, now})
    return {
        name: values
        for name, values in found.items()
        if len(values) > 1 or (values and values[0] != resolved_value(resolved, name, {}))
    }


@dataclass
class Knobs:
    """Sets the numbers of a stack. `resolved` gives what the engine of a stack resolved."""

    given: Mapping[str, Sequence[int]] | None
    resolved: Callable[[Stack], Mapping[str, Any]]
    seed: int
    _unset: dict[str, int] = field(default_factory=dict)
    """What each number is where nobody sets it, as far as a stack that does not has shown."""

    def __call__(self, search: Races, best: Stack) -> Stack:
        """The best stack with other numbers, if any beats it in a race; else the one given.

        Some proposals share their blocks, so that the present best is measured once for all of them. Of equally fast
        ones the present stays: fewer settings to explain.
        """
        now = self.resolved(best)
        space = spaces(self.given, now)
        if not space:
            return best
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=self.seed, n_startup_trials=4, constant_liar=True),
        )
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.IntDistribution(0, len(values) - 1) for name, values in space.items()
        }
        present = {name: resolved_value(now, name, {}) for name in space}
        free = [name for name in space if not any(("args", name) in each.slots for each in best.pulls)]
        self._unset.update({name: present[name] for name in free if name not in best.knobs})
        unset = {name: self._unset[name] for name in free if name in self._unset}
        unset |= {name: value for name, value in present.items() if name not in {*best.knobs, *free}}
        if all(present[name] in values for name, values in space.items()):
            study.add_trial(
                optuna.trial.create_trial(
                    params={name: values.index(present[name]) for name, values in space.items()},
                    distributions=distributions, value=1.0,
                )
            )  # fmt: skip
        first, left, idle = best, search.settings.trials, 0
        while left > 0 and idle < 2 and not search.late():
            asked = [study.ask(distributions) for _ in range(min(left, search.settings.trials_together))]
            left -= len(asked)
            made = [(trial, self._stack(search, first, space, trial.params, unset)) for trial in asked]
            better = self._better(search, best, [stack for _, stack in made])
            idle = idle + 1 if better is best else 0
            best = better
            for trial, stack in made:
                ratio = search.ratio(stack, first).value
                state = optuna.trial.TrialState.FAIL if ratio is None else None
                study.tell(trial, ratio, state=state)
        return best

    def _stack(
        self, search: Races, first: Stack, space: Mapping[str, Sequence[int]], places: Mapping[str, int],
        unset: Mapping[str, int],
    ) -> Stack:  # fmt: skip
        """The stack of one proposal, with only those numbers set that differ from what it has where nobody sets them:
        a stack by another name is raced again for nothing.
        """
        values = {**first.knobs, **{name: space[name][place] for name, place in places.items()}}
        knobs = {name: value for name, value in values.items() if value != unset.get(name)}
        return search.known(first.set(knobs))

    def _better(self, search: Races, best: Stack, stacks: Sequence[Stack]) -> Stack:
        """The fastest of those that beat the best and are not seen to harm; else the best."""
        fresh = {each.name: each for each in stacks if each.identity != best.identity}
        varied = {name: each.said_knobs() for name, each in fresh.items()}
        raced = search.race(best, list(fresh.values()), "numbers", varied)
        better = [each for each in raced if each.fate == "kept"]
        top = max(better, key=lambda each: search.gain(each.stack, best), default=None)
        return best if top is None or search.harms(top.stack) else top.stack
