"""The search: levers alone, then together, then the numbers, each against the best so far in the same blocks.

Nothing is decided by a single figure, and nothing by arithmetic on single levers: what a lever does in a stack is
measured by leaving it out of that stack, and no stack is the best before it was measured beside the one it replaces.
So every stack is connected to the baseline by blocks. The search is a pure function of what the bench measured, so an
interrupted one is resumed by beginning again: the bench gives what it has at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steelyard.errors import InputError
from steelyard.tuning.levers import Pull, changes_answers
from steelyard.tuning.race import Races
from steelyard.tuning.stack import Stack, stack_of
from steelyard.tuning.terms import PUT_OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to: the winner (None if nothing pays), the best that changes nothing but rounding where the
    winner risks more, and why it ended.
    """

    winner: Stack | None
    safe: Stack | None
    stopped: str | None


@dataclass(kw_only=True)
class Search(Races):
    """One search over `pulls`, most promising first. `later` are levers that the engine refuses on the baseline: it is
    asked again on the stack.
    """

    pulls: Sequence[Pull]
    later: Sequence[Pull] = ()
    _rest: list[Pull] = field(default_factory=list)
    _budget_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._budget_s = self.bench.left_s

    def run(self, knobs: Callable[[Search, Stack], Stack] | None = None) -> Found:
        """Search until nothing improves or the budget is spent. `knobs` sets the numbers of the stack it is given.

        Raises InputError if the budget does not even allow the first comparison, InfrastructureError if the baseline
        has no valid trial at a load point, EngineError if it does not serve.
        """
        base = self._begin()
        best = self._stack(base, self._screen(base))
        if best.name in self.refused:
            best = self._fastest()
        best = self._polished(base, best, knobs)
        if best.name in self.refused or best.identity == self.baseline.identity or not self._pays(best):
            best = self._fastest()
        if best.identity == self.baseline.identity:
            return Found(winner=None, safe=None, stopped=self._stopped)
        return Found(winner=best, safe=self._safe(best), stopped=self._stopped)

    def _begin(self) -> Stack:
        """The baseline with the levers that are pulled from the beginning, measured beside the baseline."""
        self.bench.serve(self.baseline)
        first = [each for each in self.pulls if each.name in self.settings.start]
        noted = self._note(self.baseline, self.baseline, "start", "")
        noted.fate, noted.reason = "kept", None
        if not first:
            return self.baseline
        base = self.known(stack_of(first))
        if (why := self.bench.serve(base)) is not None:
            raise InputError(f"--start: {base.said()} is not served: {why}", remedy="Start with fewer levers.")
        self.race(self.baseline, [base], "start", {base.name: base.said()}, to_the_end=True)
        return base

    def _screen(self, base: Stack) -> list[Stack]:
        """Each lever alone on the base; those that pay and are not seen to harm, the largest gain first."""
        waiting = [each for each in self.pulls if each.name not in self.settings.start]
        survivors: list[Stack] = []
        while waiting:
            spent = self._budget_s - self.bench.left_s
            if self._block and (self.late() or spent > self.settings.screen_share * self._budget_s):
                self._round += 1
                stacks, varied = self._neighbours(base, added=waiting)
                for stack in stacks:
                    self._note(stack, base, "screen", varied[stack.name]).reason = self._stopped or PUT_OFF
                break
            batch, waiting = waiting[: self.settings.together], waiting[self.settings.together :]
            stacks, varied = self._neighbours(base, added=batch)
            raced = self.race(base, stacks, "screen", varied)
            survivors += [each.stack for each in raced if each.fate == "kept"]
        sound = [each for each in survivors if not self.harms(each)]
        return sorted(sound, key=lambda each: -self.gain(each, base))

    def _stack(self, base: Stack, survivors: Sequence[Stack]) -> Stack:
        """Survivors together; then without what adds nothing there, then with what does, until nothing changes."""
        if not survivors:
            return base
        best = survivors[0]
        pays = [pull for each in survivors for pull in each.pulls if pull not in base.pulls]
        best = self._adopted(best, self._build(base, pays), "all that pay alone")
        for turn in range(self.settings.rounds):
            before = best
            best = self._thinned(base, best)
            if self.late() or best.name in self.refused:
                break
            taken = self.bench.again(best) if turn == 0 and self.later else []
            more = [*pays, *self._undecided(), *(each for each in self.later if each.name in taken)]
            wanted = [each for each in more if each not in before.pulls]
            best = self._widened(best, wanted[: self.settings.together])
            self._rest = wanted[self.settings.together :]
            if best.identity == before.identity or self.late() or best.name in self.refused:
                break
        return best

    def _polished(self, base: Stack, best: Stack, knobs: Callable[[Search, Stack], Stack] | None) -> Stack:
        """With the best numbers, then one lever less or more, whatever it did alone, until nothing improves.

        What a lever does with two sequences at once says little of what it does with 64, and what it does alone little
        of what it does among six. The least promising come last: numbers are worth more than the tenth lever that
        showed nothing.
        """
        alone = {each.stack.pulls[-1].name: each for each in self.tried if each.stage == "screen"}
        dead = {name for name, each in alone.items() if each.fate == "failed"}
        put_off = [each for each in self.pulls if each.name in alone and alone[each.name].reason == PUT_OFF]
        more = [each for each in (*self._rest, *put_off, *self._undecided(), *self.pulls) if each.name not in dead]
        thinned = best
        for _ in range(self.settings.rounds):
            if knobs is not None and not self.late():
                best = knobs(self, best)
            if best.identity != thinned.identity and not self.late():
                thinned = best = self._thinned(base, best)
            narrow = best
            best = self._widened(best, [each for each in more if each not in best.pulls])
            if best.identity == narrow.identity:
                return best
        return best if self.late() or best.name in self.refused else self._thinned(base, best)

    def _adopted(self, best: Stack, made: Stack, words: str) -> Stack:
        """The made stack, if it beats the best and is not seen to harm; else the best."""
        made = self.known(made)
        if made.identity == best.identity or made.name in self.refused:
            return best
        raced = self.race(best, [made], "stack", {made.name: words})
        return made if any(each.fate == "kept" for each in raced) and not self.harms(made) else best

    def _thinned(self, base: Stack, best: Stack) -> Stack:
        """Without the levers that bring nothing worth having in it; measured before it is believed.

        Several that each can be left out may not all be: if the stack without all of them is slower, only the one that
        brings least is left out.
        """
        removable = [each for each in best.pulls if each not in base.pulls]
        if len(removable) < 2:
            return best
        stacks, varied = self._neighbours(best, removed=removable)
        raced = self.race(best, stacks, "stack", varied, to_the_end=True)
        idle: dict[str, tuple[float, Stack]] = {}
        for each in raced:
            gain = self.gain(each.stack, best)
            if each.fate in ("kept", "no gain") and gain > 1 / self.settings.worth:
                idle[each.varied.removeprefix("-")] = (gain, each.stack)
        if not idle:
            return best
        _, least = max(idle.values(), key=lambda each: each[0])
        if len(idle) == 1:
            return least
        made = self.known(best.holding([each for each in best.pulls if each.name not in idle]))
        if made.identity == base.identity or self._served(made) is None:
            return least
        words = " ".join(f"-{name}" for name in idle)
        raced = self.race(best, [made], "stack", {made.name: words}, to_the_end=True)
        fair = any(each.fate in ("kept", "no gain") for each in raced)
        return made if fair and self.gain(made, best) > 1 / self.settings.worth else least

    def _widened(self, best: Stack, more: Sequence[Pull]) -> Stack:
        """With the levers that bring something there, some at a time; measured before it is believed."""
        waiting = [each for each in {each.name: each for each in more}.values() if each.name not in self._banned]
        while waiting and not self.late() and best.name not in self.refused:
            batch, waiting = waiting[: self.settings.together], waiting[self.settings.together :]
            stacks, varied = self._neighbours(best, added=batch)
            kept = [each.stack for each in self.race(best, stacks, "stack", varied) if each.fate == "kept"]
            paying = [each for each in kept if self.gain(each, best) > self.settings.worth]
            paying.sort(key=lambda each: -self.gain(each, best))
            sound = [each for each in paying if not self.harms(each)]
            if sound:
                added = [pull for each in sound for pull in each.pulls if pull not in best.pulls]
                made = best.holding([*added, *sound[0].pulls])
                best = self._adopted(sound[0], made, "all of these") if len(sound) > 1 else sound[0]
        return best

    def _build(self, base: Stack, pays: Sequence[Pull]) -> Stack:
        """All that pay together, the larger gain first where two exclude each other.

        If no engine serves them together they are put together one by one, and what cannot join is left out.
        """
        if served := self._served(stack_of([*base.pulls, *pays])):
            return served
        best = base
        for each in pays:
            joined = stack_of([*best.pulls, each])
            if len(joined.pulls) > len(best.pulls) and (served := self._served(joined)):
                self.bench.release([best.name])
                best = served
        return best

    def _served(self, made: Stack) -> Stack | None:
        """The stack under its name, served; None (and noted why) if it cannot be, or there is no time to measure it."""
        stack = self.known(made)
        if stack.name in self.refused or self.late():
            return None
        if (why := self.bench.serve(stack)) is not None:
            self._round += 1
            self._refuse(self._note(stack, self.baseline, "stack", stack.said()), why)
            return None
        return stack

    def _neighbours(
        self, of: Stack, *, added: Sequence[Pull] = (), removed: Sequence[Pull] = ()
    ) -> tuple[list[Stack], dict[str, str]]:
        """The stacks one lever away, and in words what each varies. An added lever takes the place of those it
        excludes.
        """
        made = [(f"-{each.name}", of.without(each.name)) for each in removed]
        for each in added:
            rest = stack_of([each, *of.pulls]).pulls
            gone = [pull.name for pull in of.pulls if pull not in rest]
            # A lever alone on the baseline has its own name.
            name = "" if of.pulls or of.knobs else each.name
            stack = Stack(name=name, pulls=(*(pull for pull in rest if pull is not each), each), knobs=of.knobs)
            made.append((" ".join([f"+{each.name}", *(f"-{name}" for name in gone)]), stack))
        found: dict[str, tuple[Stack, str]] = {}
        for words, stack in made:
            known = self.known(stack)
            if known.identity != of.identity and known.name not in self.refused:
                found.setdefault(known.name, (known, words))
        return [stack for stack, _ in found.values()], {name: words for name, (_, words) in found.items()}

    def _undecided(self) -> list[Pull]:
        """Levers that did not pay alone, the largest estimate first: in a stack they may. Not those that are slower."""
        alone = [each for each in self.tried if each.stage == "screen" and each.fate in ("no gain", "undecided")]
        alone.sort(key=lambda each: -self.gain(each.stack, self.stacks[each.against]))
        return [each.stack.pulls[-1] for each in alone]

    def _pays(self, stack: Stack) -> bool:
        """Whether a stack is faster than the baseline beyond doubt."""
        low = self.ratio(stack, self.baseline).low
        return low is not None and low > 1

    def _fastest(self, *, safe: bool = False) -> Stack:
        """Of all that pay and were not refused the one with the largest gain (of those that only round, if `safe`); the
        baseline if none does.
        """
        pay = [each for name, each in self.stacks.items() if self._measured[name] and self._pays(each)]
        pay = [each for each in pay if not safe or not changes_answers(each.risk)]
        pay.sort(key=lambda each: -self.gain(each, self.baseline))
        fit = (each for each in pay if each.name not in self.refused and not self.harms(each))
        return next(fit, self.baseline)

    def _safe(self, best: Stack) -> Stack | None:
        """The fastest that only rounds otherwise, the best without its risky levers among them; None if the best risks
        no more itself, or nothing else pays.
        """
        if not changes_answers(best.risk):
            return None
        made = Stack(name="", pulls=tuple(p for p in best.pulls if not changes_answers(p.risk)), knobs=best.knobs)
        stack = self._served(made) if made.identity != self.baseline.identity else None
        if stack is not None and not self._measured[stack.name]:
            self.race(best, [stack], "stack", {stack.name: "without what may change answers"}, to_the_end=True)
        found = self._fastest(safe=True)
        return None if found.identity == self.baseline.identity else found


def ordered(pulls: Sequence[Pull]) -> list[Pull]:
    """Most promising first: by what is predicted; what nobody can predict before what is predicted to bring nothing."""

    def promise(each: Pull) -> float:
        return math.log(each.predicted[1]) if each.predicted is not None else math.log(1.02)

    return sorted(pulls, key=lambda each: (-promise(each), each.name))
