"""The search: levers alone, then together, then the numbers, each against the best so far in the same blocks.

Nothing is decided by a single figure, and nothing by arithmetic on single levers: what a lever does in a stack is
measured by leaving it out of that stack, and no stack is the best before it was measured beside the one it replaces.
So every stack is connected to the baseline by blocks. The search is a pure function of what the bench measured, so an
interrupted one is resumed by beginning again: the bench gives what it has at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from steelyard.digest import digest
from steelyard.errors import InfrastructureError, InputError
from steelyard.stats.incomplete_blocks import Comparing, Observation
from steelyard.stats.paired import Estimate
from steelyard.tuning.levers import RISKS, Pull
from steelyard.tuning.stack import BASELINE, Stack, stack_of

Stage = Literal["start", "screen", "stack", "numbers"]
Fate = Literal["kept", "slower", "no gain", "undecided", "failed", "harmful", "not tried"]
"""kept: faster beyond doubt; slower: beyond doubt; no gain: none was shown; undecided: the budget was spent first;
failed: no engine serves it; harmful: a quality gate is proven broken; not tried: the budget was spent before.
"""
CONFIDENCE = 0.9
"""Of what the search itself believes. What it finds is judged afterwards by the study's own gates."""
SAFE = RISKS.index("rounding")
SPENT = "the budget was spent"
GONE = "what it was held against stopped serving"


class Bench(Protocol):
    """What measures. Everything it was asked before, in this process or a killed one, it answers from memory."""

    def serve(self, stack: Stack) -> str | None:
        """Make ready to measure; why it cannot be served, or None. Raises EngineError for the baseline."""
        ...

    def begin(self, name: str, stacks: int, blocks: int) -> None:
        """A round begins, with so many stacks and blocks at most: for whoever watches."""
        ...

    def block(self, stacks: Sequence[Stack]) -> dict[str, str]:
        """Measure each once at every load point, in random order; why some serve no more, by name."""
        ...

    def harm(self, stack: Stack) -> tuple[str, str] | None:
        """Ask the beginning of each suite: ("harmful", which gate is proven broken), ("failed", why it stopped
        serving), or None.
        """
        ...

    def again(self, stack: Stack) -> list[str]:
        """Of the levers that the engine refuses on the baseline, the names of those that it takes on a stack."""
        ...

    def release(self, names: Sequence[str]) -> None:
        """These are not needed for now; their engines end, and the next use starts them anew."""
        ...

    def observations(self) -> list[Observation]:
        """The goal of every stack at every load point in every block asked for so far."""
        ...

    def doubt(self, name: str) -> str | None:
        """A load point where no trial of a stack is valid, and why; None if there is none."""
        ...

    @property
    def points(self) -> Sequence[str]:
        """Names of the load points."""
        ...

    @property
    def left_s(self) -> float:
        """Seconds of the budget that were left when the last of these calls ended."""
        ...

    @property
    def start_s(self) -> float:
        """Seconds an engine needs to start, by those started last."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How far a search goes. `screen_share` is of the search's budget."""

    together: int = 6
    """Stacks that share their blocks, the one they are held against not counted."""
    least_blocks: int = 2
    screen_blocks: int = 3
    most_blocks: int = 4
    screen_share: float = 0.5
    worth: float = 1.02
    """What a lever must bring to the stack, by its estimate, to stay in it: fewer settings to explain."""
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
    fate: Fate = "not tried"
    reason: str | None = SPENT
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
    once, by name; `refused` why some can be no part of the answer. `later` are levers that the engine refuses on the
    baseline: it is asked again on the stack.
    """

    bench: Bench
    pulls: Sequence[Pull]
    settings: Settings
    tell: Tell
    later: Sequence[Pull] = ()
    on_round: Callable[[Sequence[Tried]], None] = lambda _: None
    tried: list[Tried] = field(default_factory=list)
    stacks: dict[str, Stack] = field(default_factory=dict)
    refused: dict[str, tuple[Fate, str]] = field(default_factory=dict)
    _banned: set[str] = field(default_factory=set)
    _sound: set[frozenset[str]] = field(default_factory=set)
    _checked: bool = False
    _rest: list[Pull] = field(default_factory=list)
    _measured: Counter[str] = field(default_factory=Counter)
    _round: int = 0
    _block: int = 0
    _per_arm_s: float = 0.0
    _budget_s: float = 0.0
    _stopped: str | None = None

    def __post_init__(self) -> None:
        self.baseline = self.stacks[BASELINE] = Stack(name=BASELINE)
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
        if knobs is not None and not self.late():
            best = knobs(self, best)
        # The least promising last: numbers are worth more than the tenth lever that showed nothing alone.
        best = self._widened(best, [each for each in self._rest if each not in best.pulls])
        if best.name in self.refused or best.identity == self.baseline.identity or not self._pays(best):
            best = self._fastest()
        if best.identity == self.baseline.identity:
            return Found(winner=None, safe=None, stopped=self._stopped)
        return Found(winner=best, safe=self._safe(best), stopped=self._stopped)

    def race(
        self, against: Stack, challengers: Sequence[Stack], stage: Stage, varied: Mapping[str, str],
        *, to_the_end: bool = False,
    ) -> list[Tried]:  # fmt: skip
        """Hold challengers against one stack, block by block, until each is decided; those that were measured.

        A challenger that is slower beyond doubt is dropped; one that is faster beyond doubt needs no more blocks. One
        that shows no gain after the least of blocks is dropped too, unless its loss is what is asked for
        (`to_the_end`). What the time left does not allow is not started.
        """
        settings, found = self.settings, []
        for place in range(0, len(challengers), settings.together):
            self._round += 1
            part = challengers[place : place + settings.together]
            noted = [self._note(each, against, stage, varied.get(each.name, each.said())) for each in part]
            found += noted
            if against.name in self.refused:
                for each in noted:
                    each.reason = GONE
                continue
            waiting = [each for each in noted if not self._known(each, against)]
            live = [each for each in waiting[: self._room(len(waiting))] if self._up(each)]
            most = settings.screen_blocks if stage == "screen" else settings.most_blocks
            if live:
                self.bench.begin(f"{stage} {self._round}", len(live) + 1, most)
                self.bench.release([against.name])
                self._blocks(against, live, most, to_the_end=to_the_end)
            self.bench.release([each.stack.name for each in noted])
            self.on_round(self.tried)
        self.bench.release([against.name])
        return [each for each in found if each.blocks or each.fate in ("kept", "slower")]

    def _blocks(self, against: Stack, live: list[Tried], most: int, *, to_the_end: bool) -> None:
        """Blocks of one round, until each stack is decided."""
        for number in range(most):
            if not live or against.name in self.refused or (number and self._cannot(len(live) + 1)):
                break
            self._measure([against, *(each.stack for each in live)], first=number == 0)
            live = [each for each in live if not self._failed(each)]
            compare = self.compare()
            for each in list(live):
                each.blocks += 1
                each.fate, each.reason = "undecided", f"{SPENT} after {each.blocks} blocks of this round"
                ratio = compare.ratio(each.stack.name, against.name, CONFIDENCE)
                fate = _decided(ratio, each.blocks, self.settings.least_blocks)
                futile = not to_the_end and each.blocks >= self.settings.least_blocks and (ratio.value or 0.0) <= 1
                if fate is not None or futile or each.blocks == most:
                    each.fate, each.reason = fate or "no gain", None
                    if ratio.value is None:
                        each.reason = self.bench.doubt(each.stack.name)
                    live.remove(each)
                    self.bench.release([each.stack.name])
        for each in live if against.name in self.refused else ():
            each.reason = GONE
        checked, self._checked = self._checked, True
        if not checked and (why := self.bench.doubt(BASELINE)) is not None:
            raise InfrastructureError(
                f"The baseline has no valid trial at {why}.",
                remedy="Search other load points (--at), or mend this one.",
            )

    def compare(self) -> Comparing:
        """All that was measured so far, as ratios."""
        return Comparing(self.bench.observations(), self.bench.points)

    def ratio(self, one: Stack, other: Stack) -> Estimate:
        """The goal of one stack over the other's."""
        return self.compare().ratio(one.name, other.name, CONFIDENCE)

    def known(self, stack: Stack) -> Stack:
        """The stack that serves the same and has a name already; else this one under a name of its own.

        Names follow from what is served, so a resumed search cannot take one stack's trials for another's.
        """
        same = next((each for each in self.stacks.values() if each.identity == stack.identity), None)
        if same is not None:
            return same
        slots, knobs = stack.identity
        name = stack.name or f"stack-{digest([sorted(map(str, slots)), knobs])[:6]}"
        made = self.stacks[name] = Stack(name=name, pulls=stack.pulls, knobs=stack.knobs)
        return made

    def late(self) -> bool:
        """Whether there is no time for another comparison of two."""
        return self._room(1) == 0

    def harms(self, stack: Stack) -> bool:
        """Whether the beginning of the suites proves harm, or nobody has the time to ask. Stacks that only round
        otherwise are left to the gates, and so is one whose risky levers were asked together before.
        """
        risky = frozenset(each.name for each in stack.pulls if RISKS.index(each.risk) > SAFE)
        if not risky or risky in self._sound:
            return False
        if stack.name in self.refused or self.late():
            return True
        came = self.bench.harm(stack)
        self.bench.release([BASELINE, stack.name])
        if came is None:
            self._sound.add(risky)
            return False
        fate: Fate = "harmful" if came[0] == "harmful" else "failed"
        self.refused[stack.name] = (fate, came[1])
        self.tell(f"{stack.said()} {'pays and harms' if fate == 'harmful' else 'stopped serving'}: {came[1]}")
        for each in self.tried:
            if each.stack.name == stack.name:
                each.fate, each.reason = self.refused[stack.name]
        if len(risky) == 1:
            self._banned |= risky
        self.on_round(self.tried)
        return True

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
            if self._block and (spent > self.settings.screen_share * self._budget_s or self.late()):
                self._stopped = self._stopped or "the time for single levers was spent"
                self._round += 1
                stacks, varied = self._neighbours(base, added=waiting)
                for stack in stacks:
                    self._note(stack, base, "screen", varied[stack.name])
                break
            batch, waiting = waiting[: self.settings.together], waiting[self.settings.together :]
            stacks, varied = self._neighbours(base, added=batch)
            raced = self.race(base, stacks, "screen", varied)
            survivors += [each.stack for each in raced if each.fate == "kept"]
        sound = [each for each in survivors if not self.harms(each)]
        return sorted(sound, key=lambda each: -(self.ratio(each, base).value or 0.0))

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

    def _adopted(self, best: Stack, made: Stack, words: str) -> Stack:
        """The made stack, if it beats the best beyond doubt and is not seen to harm; else the best."""
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
            value = self.ratio(each.stack, best).value
            if each.fate in ("kept", "no gain") and value is not None and value > 1 / self.settings.worth:
                idle[each.varied.removeprefix("-")] = (value, each.stack)
        if not idle:
            return best
        _, least = max(idle.values(), key=lambda each: each[0])
        if len(idle) == 1:
            return least
        made = self.known(stack_of([each for each in best.pulls if each.name not in idle]))
        if made.identity == base.identity or self._served(made) is None:
            return least
        words = " ".join(f"-{name}" for name in idle)
        raced = self.race(best, [made], "stack", {made.name: words}, to_the_end=True)
        fair = any(each.fate in ("kept", "no gain") for each in raced)
        return made if fair and (self.ratio(made, best).value or 0.0) > 1 / self.settings.worth else least

    def _widened(self, best: Stack, more: Sequence[Pull]) -> Stack:
        """With the levers that bring something there, some at a time; measured before it is believed."""
        waiting = [each for each in {each.name: each for each in more}.values() if each.name not in self._banned]
        while waiting and not self.late() and best.name not in self.refused:
            batch, waiting = waiting[: self.settings.together], waiting[self.settings.together :]
            stacks, varied = self._neighbours(best, added=batch)
            raced = [each for each in self.race(best, stacks, "stack", varied) if each.fate == "kept"]
            raced.sort(key=lambda each: -(self.ratio(each.stack, best).value or 0.0))
            sound = [each.stack for each in raced if not self.harms(each.stack)]
            if sound:
                added = [pull for each in sound for pull in each.pulls if pull not in best.pulls]
                made = stack_of([*added, *sound[0].pulls])
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
        alone.sort(key=lambda each: -(self.ratio(each.stack, self.stacks[each.against]).value or 0.0))
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
        pay = [each for each in pay if not safe or RISKS.index(each.risk) <= SAFE]
        pay.sort(key=lambda each: -(self.ratio(each, self.baseline).value or 0.0))
        fit = (each for each in pay if each.name not in self.refused and not self.harms(each))
        return next(fit, self.baseline)

    def _safe(self, best: Stack) -> Stack | None:
        """The fastest that only rounds otherwise, the best without its risky levers among them; None if the best risks
        no more itself, or nothing else pays.
        """
        if RISKS.index(best.risk) <= SAFE:
            return None
        made = Stack(name="", pulls=tuple(p for p in best.pulls if RISKS.index(p.risk) <= SAFE), knobs=best.knobs)
        stack = self._served(made) if made.identity != self.baseline.identity else None
        if stack is not None and not self._measured[stack.name]:
            self.race(best, [stack], "stack", {stack.name: "without what may change answers"}, to_the_end=True)
        found = self._fastest(safe=True)
        return None if found.identity == self.baseline.identity else found

    def _note(self, stack: Stack, against: Stack, stage: Stage, varied: str) -> Tried:
        self.stacks[stack.name] = stack
        self.tried.append(Tried(self._round, stage, stack, against.name, varied))
        return self.tried[-1]

    def _refuse(self, tried: Tried, why: str) -> None:
        tried.fate, tried.reason = "failed", why
        self.refused[tried.stack.name] = ("failed", why)
        self.tell(f"{tried.stack.said()} does not serve: {why}")

    def _known(self, each: Tried, against: Stack) -> bool:
        """Whether earlier rounds show already that it is slower. Faster is believed only side by side."""
        if self._failed(each):
            return True
        fate = _decided(self.ratio(each.stack, against), self._measured[each.stack.name], self.settings.least_blocks)
        if fate == "slower":
            each.fate, each.reason = fate, "decided by the blocks of earlier rounds"
        return fate == "slower"

    def _failed(self, each: Tried) -> bool:
        if each.stack.name in self.refused:
            each.fate, each.reason = self.refused[each.stack.name]
        return each.stack.name in self.refused

    def _up(self, each: Tried) -> bool:
        if (why := self.bench.serve(each.stack)) is not None:
            self._refuse(each, why)
        return why is None

    def _measure(self, stacks: Sequence[Stack], *, first: bool) -> None:
        """One block. The first of a round holds starts too, so it says what a block takes only if no other does."""
        before = self.bench.left_s
        for name, why in self.bench.block(stacks).items():
            self.refused[name] = ("failed", why)
            self.tell(f"{self.stacks[name].said()} stopped serving: {why}")
        self._block += 1
        self._measured.update(each.name for each in stacks)
        if not first or not self._per_arm_s:
            self._per_arm_s = max(0.0, before - self.bench.left_s) / len(stacks) or self._per_arm_s

    def _room(self, wanted: int) -> int:
        """How many challengers can be started and measured in the least of blocks, in the time left.

        Before anything was measured nobody knows what a block takes: then only starts count.
        """
        blocks = self.settings.least_blocks
        each_s = 2 * self.bench.start_s + blocks * self._per_arm_s
        room = int((self.bench.left_s - self.bench.start_s - blocks * self._per_arm_s) / each_s) if each_s else wanted
        room = max(0, min(wanted, room))
        if room < wanted:
            if not self._block and not room:
                raise InputError(
                    f"--budget is too small: an engine takes {self.bench.start_s:.0f} s to start here, and nothing can "
                    f"be said before {blocks} blocks of two.", remedy="Give several times as much.",
                )  # fmt: skip
            self._stopped = SPENT
        return room

    def _cannot(self, arms: int) -> bool:
        """Whether the time left is too short for one more block of so many."""
        need = self._per_arm_s * arms
        if self.bench.left_s > need:
            return False
        if self._block < self.settings.least_blocks:
            raise InputError(
                f"--budget is too small: one block of {arms} arms takes {need:.0f} s here, and nothing can be said "
                f"before {self.settings.least_blocks} of them.",
                remedy="Give several times as much, or name fewer levers (--levers) and load points (--at).",
            )
        self._stopped = SPENT
        return True


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
