"""The search: levers alone, then together, then the numbers, each against the best so far in the same blocks.

Nothing is decided by a single figure, and nothing by arithmetic on single levers: what a lever does in a stack is
measured by leaving it out of that stack. The search is a pure function of what the bench measured, so an interrupted
one is resumed by beginning again: the bench gives what it has at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from steelyard.errors import InputError
from steelyard.stats.incomplete_blocks import Comparing, Observation
from steelyard.stats.paired import Estimate
from steelyard.tuning.levers import RISKS, Pull
from steelyard.tuning.stack import BASELINE, Stack, stack_of

Stage = Literal["start", "screen", "stack", "numbers"]
Fate = Literal["kept", "slower", "no gain", "failed", "harmful", "not tried"]
"""kept: faster beyond doubt; slower: beyond doubt; no gain: none was shown; failed: no engine serves it; harmful: a
quality gate is proven broken; not tried: the budget was spent.
"""
CONFIDENCE = 0.9
"""Of what the search itself believes. What it finds is judged afterwards by the study's own gates."""
SAFE = RISKS.index("rounding")


class Bench(Protocol):
    """What measures. Everything it was asked before, in this process or a killed one, it answers from memory."""

    def serve(self, stack: Stack) -> str | None:
        """Make ready to measure; why it cannot be served, or None."""
        ...

    def begin(self, name: str, stacks: int, blocks: int) -> None:
        """A round begins, with so many stacks and blocks at most: for whoever watches."""
        ...

    def block(self, stacks: Sequence[Stack], number: int) -> dict[str, str]:
        """Measure each once at every load point, in random order; why some serve no more, by name."""
        ...

    def harm(self, stack: Stack) -> str | None:
        """Ask the beginning of each suite; which gate is proven broken, or None."""
        ...

    def release(self, names: Sequence[str]) -> None:
        """These are not needed for now; their engines may end."""
        ...

    def observations(self) -> list[Observation]:
        """The goal of every stack at every load point in every block."""
        ...

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How far a search goes. Shares are of the whole search's budget."""

    together: int = 6
    """Levers screened in the same blocks."""
    least_blocks: int = 2
    most_blocks: int = 4
    screen_share: float = 0.55
    rounds: int = 3
    trials: int = 12
    trials_together: int = 3
    start: tuple[str, ...] = ()
    """Levers that are pulled from the beginning and never left out."""


@dataclass(slots=True)
class Tried:
    """One stack in one round of the search and what became of it there. `against` and `varied`: what it was held
    against, and what distinguishes it from that.
    """

    round: int
    stage: Stage
    stack: Stack
    against: str
    varied: str
    fate: Fate = "no gain"
    reason: str | None = None
    blocks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to: the winner (None if nothing pays), the best that changes nothing but rounding where the
    winner risks more, and why it ended.
    """

    winner: Stack | None
    safe: Stack | None
    stopped: str | None


Tell = Callable[[str], None]


@dataclass
class Search:
    """One search over `pulls`, most promising first. `tried` holds every stack of every round, in order; `stacks` each
    once, by name; `refused` why some can be no part of the answer.
    """

    bench: Bench
    pulls: Sequence[Pull]
    settings: Settings
    tell: Tell
    later: Sequence[Pull] = ()
    """Levers that cannot be pulled alone, such as weights that need another data type: they are put into stacks."""
    on_round: Callable[[Sequence[Tried]], None] = lambda _: None
    tried: list[Tried] = field(default_factory=list)
    stacks: dict[str, Stack] = field(default_factory=dict)
    refused: dict[str, tuple[Fate, str]] = field(default_factory=dict)
    _measured: Counter[str] = field(default_factory=Counter)
    _round: int = 0
    _block: int = 0
    _named: int = 0
    _per_arm_s: float = 0.0
    _budget_s: float = 0.0
    _stopped: str | None = None

    def __post_init__(self) -> None:
        self.baseline = Stack(name=BASELINE)
        self._budget_s = self.bench.left_s

    def run(self, knobs: Callable[[Search, Stack], Stack] | None = None) -> Found:
        """Search until nothing improves or the budget is spent. `knobs` sets the numbers of the stack it is given.

        Raises InputError if the budget does not even allow the first comparison, EngineError if the baseline does not
        serve.
        """
        base = self._begin()
        survivors = self._screen(base)
        best = self._stack(base, survivors)
        if knobs is not None and not self.late():
            best = knobs(self, best)
        if best.identity == self.baseline.identity:
            return Found(winner=None, safe=None, stopped=self._stopped)
        return Found(winner=best, safe=self._safe(best), stopped=self._stopped)

    def race(
        self, against: Stack, challengers: Sequence[Stack], stage: Stage, varied: Mapping[str, str]
    ) -> list[Tried]:
        """Hold challengers against one stack, block by block, until each is decided; those that were measured.

        A challenger that is slower beyond doubt is dropped; one that is faster beyond doubt needs no more blocks.
        """
        self._round += 1
        found = [self._note(each, against, stage, varied.get(each.name, each.said())) for each in challengers]
        live = [each for each in found if not self._known(each, against) and self._up(each)]
        if live:
            self.bench.begin(f"{stage} {self._round}", len(live) + 1, self.settings.most_blocks)
            self.bench.release([against.name])
        for number in range(self.settings.most_blocks):
            if not live or self._cannot(len(live) + 1, first=number == 0):
                break
            self._measure([against, *(each.stack for each in live)])
            live = [each for each in live if not self._failed(each)]
            compare = self.compare()
            for each in list(live):
                each.blocks += 1
                ratio = compare.ratio(each.stack.name, against.name, CONFIDENCE)
                if fate := _decided(ratio, each.blocks, self.settings.least_blocks):
                    each.fate = fate
                    live.remove(each)
                    self.bench.release([each.stack.name])
        self.bench.release([each.stack.name for each in live])
        self.on_round(self.tried)
        return [each for each in found if each.blocks or each.fate in ("kept", "slower")]

    def compare(self) -> Comparing:
        """All that was measured so far, as ratios."""
        return Comparing(self.bench.observations())

    def ratio(self, one: Stack, other: Stack) -> Estimate:
        """The goal of one stack over the other's."""
        return self.compare().ratio(one.name, other.name, CONFIDENCE)

    def named(self, stack: Stack) -> Stack:
        """The stack under a name of its own."""
        self._named += 1
        made = Stack(name=f"stack-{self._named}", pulls=stack.pulls, knobs=stack.knobs)
        self.stacks[made.name] = made
        return made

    def known(self, stack: Stack) -> Stack:
        """The stack that serves the same under the name it has already, else this one."""
        return next((each for each in self.stacks.values() if each.identity == stack.identity), stack)

    def late(self) -> bool:
        """Whether there is no time for another comparison of two."""
        return self._cannot(2, first=False)

    def _begin(self) -> Stack:
        """The baseline with the levers that are pulled from the beginning."""
        why = self.bench.serve(self.baseline)
        first = [each for each in self.pulls if each.name in self.settings.start]
        base = self.named(stack_of(first)) if first else self.baseline
        if first:
            why = why or self.bench.serve(base)
            self._note(base, self.baseline, "start", base.said())
        if why is not None:
            raise InputError(
                f"The search cannot begin: {base.said()} is not served: {why}", remedy="Start it with fewer levers."
            )
        return base

    def _screen(self, base: Stack) -> list[Tried]:
        """Each lever alone on the base, several in the same blocks; those that pay and are not seen to harm."""
        waiting = [each for each in self.pulls if each.name not in self.settings.start]
        survivors: list[Tried] = []
        while waiting:
            spent = self._budget_s - self.bench.left_s
            if spent > self.settings.screen_share * self._budget_s or self.late():
                self._leave(waiting, base)
                break
            batch, waiting = waiting[: self.settings.together], waiting[self.settings.together :]
            stacks, varied = self._neighbours(base, added=batch)
            survivors += [each for each in self.race(base, stacks, "screen", varied) if each.fate == "kept"]
        return [each for each in survivors if not self.harms(each)]

    def _stack(self, base: Stack, survivors: Sequence[Tried]) -> Stack:
        """Survivors together, then what leaving one out or putting one in does, until nothing improves."""
        if not survivors:
            return base
        ranked = sorted(survivors, key=lambda each: -(self.ratio(each.stack, base).value or 0.0))
        pays = [pull for each in ranked for pull in each.stack.pulls if pull not in base.pulls]
        best, left_out = self._build(base, pays)
        before: Stack | None = None
        for _ in range(self.settings.rounds):
            if self.late():
                break
            maybe = [*left_out, *self._undecided(), *self.later]
            stacks, varied = self._neighbours(
                best, added=[each for each in maybe if each not in best.pulls],
                removed=[each for each in best.pulls if each not in base.pulls] if len(best.pulls) > 1 else (),
            )  # fmt: skip
            if before is not None and before.identity not in [each.identity for each in stacks]:
                stacks.append(before)
            if not stacks:
                break
            raced = self.race(best, stacks, "stack", varied)
            then = self._moved(base, best, raced, before)
            if then.identity == best.identity:
                break
            before, best = best, then
        return best

    def _moved(self, base: Stack, best: Stack, raced: Sequence[Tried], before: Stack | None) -> Stack:
        """The stack after a round: without what adds nothing there, with what does.

        Several that each can be left out may not all be: the next round holds the present stack against what it
        becomes, and if that is worse goes back and leaves out only the one that adds least.
        """
        if before is not None and any(each.stack.identity == before.identity and each.fate == "kept" for each in raced):
            return before
        idle = {
            lever: self.ratio(each.stack, best)
            for each in raced
            for lever in best.levers
            if each.stack.identity == best.without(lever).identity and each.fate in ("kept", "no gain")
        }
        if before is not None and len(idle) > 1:
            least = max(idle, key=lambda name: idle[name].value or 0.0)
            idle = {least: idle[least]}
        kept = [each for each in best.pulls if each.name not in idle or each in base.pulls]
        more = [
            pull
            for each in sorted(raced, key=lambda each: -(self.ratio(each.stack, best).value or 0.0))
            if each.fate == "kept"
            for pull in each.stack.pulls
            if pull not in best.pulls and not self.harms(each)
        ]
        # What came later and pays replaces what it excludes.
        made = stack_of([*base.pulls, *more, *kept])
        if made.identity in (best.identity, self.baseline.identity):
            return best
        return self._served(made) or best

    def _build(self, base: Stack, pays: Sequence[Pull]) -> tuple[Stack, list[Pull]]:
        """All that pay together, the larger gain first where two exclude each other; and what was left out.

        If no engine serves them together they are put together one by one, and what cannot join is left out.
        """
        whole = stack_of([*base.pulls, *pays])
        out = [each for each in pays if each not in whole.pulls]
        if served := self._served(whole):
            return served, out
        best = base
        for each in pays:
            joined = stack_of([*best.pulls, each])
            served = self._served(joined) if len(joined.pulls) > len(best.pulls) else None
            best = served or best
        return best, out

    def _served(self, made: Stack) -> Stack | None:
        """The stack under a name, served; None (and noted why) if it cannot be."""
        stack = self.known(made)
        if not stack.name:
            stack = self.named(stack)
        if stack.name in self.refused:
            return None
        if (why := self.bench.serve(stack)) is not None:
            noted = self._note(stack, self.baseline, "stack", stack.said())
            self._refuse(noted, "failed", why)
            return None
        return stack

    def _neighbours(
        self, of: Stack, *, added: Sequence[Pull] = (), removed: Sequence[Pull] = ()
    ) -> tuple[list[Stack], dict[str, str]]:
        """The stacks one lever away, under names, and in words what each varies. An added lever takes the place of
        those it excludes.
        """
        made = [(f"-{each.name}", of.without(each.name)) for each in removed]
        for each in added:
            rest = stack_of([each, *of.pulls]).pulls
            gone = [pull.name for pull in of.pulls if pull not in rest]
            ordered = (*(pull for pull in rest if pull is not each), each)
            # A lever alone on the baseline has its own name; every other stack gets one when it is tried.
            name = "" if of.pulls or of.knobs else each.name
            stack = Stack(name=name, pulls=ordered, knobs=of.knobs)
            made.append((" ".join([f"+{each.name}", *(f"-{name}" for name in gone)]), stack))
        stacks: list[Stack] = []
        varied: dict[str, str] = {}
        for words, stack in made:
            known = self.known(stack)
            if known.name in self.refused or known.identity in [of.identity, *(each.identity for each in stacks)]:
                continue
            if not known.name:
                known = self.named(known)
            stacks.append(known)
            varied[known.name] = words
        return stacks, varied

    def _undecided(self) -> list[Pull]:
        """Levers that neither paid nor hurt alone: in a stack they may."""
        return [
            each.stack.pulls[-1]
            for each in self.tried
            if each.stage == "screen" and each.fate == "no gain" and each.blocks
        ]

    def _safe(self, best: Stack) -> Stack | None:
        """The best without its risky levers, measured; None if it risks nothing but rounding, or nothing is left."""
        if RISKS.index(best.risk) <= SAFE:
            return None
        made = Stack(name="", pulls=tuple(p for p in best.pulls if RISKS.index(p.risk) <= SAFE), knobs=best.knobs)
        if made.identity == self.baseline.identity or (stack := self._served(made)) is None:
            return None
        if not self.late():
            self.race(best, [stack], "stack", {stack.name: "without what may change answers"})
        return stack

    def harms(self, tried: Tried) -> bool:
        """Whether the beginning of the suites proves harm. Levers that only round otherwise are left to the gates."""
        if RISKS.index(tried.stack.risk) <= SAFE:
            return False
        why = self.bench.harm(tried.stack)
        self.bench.release([tried.stack.name])
        if why is not None:
            self._refuse(tried, "harmful", why)
        return why is not None

    def _note(self, stack: Stack, against: Stack, stage: Stage, varied: str) -> Tried:
        self.stacks[stack.name] = stack
        self.tried.append(Tried(self._round, stage, stack, against.name, varied))
        return self.tried[-1]

    def _refuse(self, tried: Tried, fate: Fate, why: str) -> None:
        tried.fate, tried.reason = fate, why
        self.refused[tried.stack.name] = (fate, why)
        self.tell(f"{tried.stack.said()} {'pays and harms' if fate == 'harmful' else 'does not serve'}: {why}")

    def _known(self, each: Tried, against: Stack) -> bool:
        """Whether earlier rounds decide between the two already."""
        fate = _decided(self.ratio(each.stack, against), self._measured[each.stack.name], self.settings.least_blocks)
        if fate is not None:
            each.fate, each.reason = fate, "decided by the blocks of earlier rounds"
        return fate is not None

    def _failed(self, each: Tried) -> bool:
        if each.stack.name in self.refused:
            each.fate, each.reason = self.refused[each.stack.name]
        return each.stack.name in self.refused

    def _up(self, each: Tried) -> bool:
        if self._failed(each):
            return False
        if (why := self.bench.serve(each.stack)) is not None:
            self._refuse(each, "failed", why)
        return why is None

    def _measure(self, stacks: Sequence[Stack]) -> None:
        before = self.bench.left_s
        for name, why in self.bench.block(stacks, self._block).items():
            self.refused[name] = ("failed", why)
            self.tell(f"{self.stacks[name].said()} stopped serving: {why}")
        self._block += 1
        self._measured.update(each.name for each in stacks)
        self._per_arm_s = max(0.0, before - self.bench.left_s) / len(stacks) or self._per_arm_s

    def _cannot(self, arms: int, *, first: bool) -> bool:
        """Whether the time left is too short for a block of so many. The very first block is always measured."""
        if self._block == 0 and first:
            return False
        need = self._per_arm_s * arms
        if self.bench.left_s > need:
            return False
        if self._block < self.settings.least_blocks:
            raise InputError(
                f"--budget is too small: one block of {arms} arms takes {need:.0f} s here, and nothing can be said "
                f"before {self.settings.least_blocks} of them.",
                remedy="Give several times as much, or name fewer levers with --levers; what was measured is kept.",
            )
        self._stopped = "the budget was spent"
        return True

    def _leave(self, waiting: Sequence[Pull], base: Stack) -> None:
        for each in waiting:
            stack = Stack(name=each.name, pulls=(*base.pulls, each))
            noted = self._note(stack, base, "screen", f"+{each.name}")
            noted.fate, noted.reason = "not tried", "the budget for single levers was spent"


def _decided(ratio: Estimate, blocks: int, least: int) -> Fate | None:
    """What a ratio with its interval says after so many blocks; None while it says nothing."""
    if blocks < least or ratio.low is None or ratio.high is None:
        return None
    if ratio.high < 1:
        return "slower"
    return "kept" if ratio.low > 1 else None


def ordered(pulls: Sequence[Pull]) -> list[Pull]:
    """Most promising first: by what is predicted; what nobody can predict before what is predicted to bring nothing."""

    def promise(each: Pull) -> float:
        return math.log(each.predicted[1]) if each.predicted is not None else math.log(1.02)

    return sorted(pulls, key=lambda each: (-promise(each), each.name))
