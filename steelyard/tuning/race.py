"""A race: some stacks held against one in the same blocks, until each is decided; and the time it may take.

What is believed here is `CONFIDENCE` sure, or `LIKELY` at the end of a race, and looked at after every block. It serves
to be quick; what is found is judged afterwards by others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from steelyard.digest import digest
from steelyard.errors import InfrastructureError, InputError
from steelyard.stats.incomplete_blocks import Comparing
from steelyard.stats.paired import Estimate
from steelyard.tuning.levers import changes_answers
from steelyard.tuning.stack import BASELINE, Stack
from steelyard.tuning.terms import CONFIDENCE, GONE, LIKELY, SPENT, Bench, Fate, Settings, Stage, Tried


@dataclass
class Races:
    """All races of one search. `tried` holds every stack of every round, in order; `stacks` each once, by name;
    `refused` why some can be no part of the answer. `on_round` is told after each.
    """

    bench: Bench
    settings: Settings
    tell: Callable[[str], None]
    on_round: Callable[[Sequence[Tried]], None] = lambda _: None
    tried: list[Tried] = field(default_factory=list)
    stacks: dict[str, Stack] = field(default_factory=dict)
    refused: dict[str, tuple[Fate, str]] = field(default_factory=dict)
    _banned: set[str] = field(default_factory=set)
    _sound: set[frozenset[str]] = field(default_factory=set)
    _settled: dict[tuple[str, str], Fate] = field(default_factory=dict)
    _checked: bool = False
    _compared: tuple[int, Comparing] | None = None
    _measured: Counter[str] = field(default_factory=Counter)
    _round: int = 0
    _block: int = 0
    _per_arm_s: float = 0.0
    _stopped: str | None = None

    def __post_init__(self) -> None:
        self.baseline = self.stacks[BASELINE] = Stack(name=BASELINE)

    def race(
        self, against: Stack, challengers: Sequence[Stack], stage: Stage, varied: Mapping[str, str],
        *, to_the_end: bool = False,
    ) -> list[Tried]:  # fmt: skip
        """Hold challengers against one stack, block by block, until each is decided; those that were measured.

        A challenger that is slower beyond doubt is dropped; one that is faster beyond doubt needs no more blocks. One
        that shows no gain after the least of blocks, or none worth having after a few, is dropped too, unless its loss
        is what is asked for (`to_the_end`, a few blocks). What the time left does not allow is not started, and a race
        that was run is not run again.
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
            if live:
                most = settings.few_blocks if to_the_end else settings.most_blocks
                self.bench.begin(f"{stage} {self._round}", len(live) + 1, most)
                self.bench.release([against.name])
                self._blocks(against, live, most, to_the_end=to_the_end)
            self.bench.release([each.stack.name for each in noted])
            self.on_round(self.tried)
        self.bench.release([against.name])
        return [each for each in found if each.blocks or each.fate in ("kept", "slower", "no gain")]

    def _blocks(self, against: Stack, live: list[Tried], most: int, *, to_the_end: bool) -> None:
        """Blocks of one round, until each stack is decided."""
        for number in range(most):
            if not live or against.name in self.refused or (number and self._cannot(len(live) + 1)):
                break
            self._measure([against, *(each.stack for each in live)], first=number == 0)
            live = [each for each in live if not self._failed(each)]
            end = min(most, self.settings.few_blocks) if self._dear(len(live) + 1) else most
            for each in list(live):
                each.blocks += 1
                each.fate, each.reason = "undecided", f"{SPENT} after {each.blocks} blocks of this round"
                came = self._came_to(each, against, end, to_the_end=to_the_end)
                if came is not None:
                    each.fate, each.reason = came
                    self._settled[each.stack.name, against.name] = each.fate
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

    def _came_to(self, each: Tried, against: Stack, end: int, *, to_the_end: bool) -> tuple[Fate, str | None] | None:
        """What became of one after its latest block, and why; None if it needs another."""
        ratio, least = self.ratio(each.stack, against), self.settings.least_blocks
        fate = _decided(ratio, each.blocks, least)
        if fate is not None:
            return fate, None
        # More blocks would hardly show a gain, or none worth having.
        wanted = self.settings.worth if each.blocks >= self.settings.few_blocks else 1.0
        futile = not to_the_end and each.blocks >= least and (ratio.value or 0.0) <= wanted
        if not futile and each.blocks < end:
            return None
        low = self.compare().ratio(each.stack.name, against.name, LIKELY).low
        if not futile and not to_the_end and low is not None and low > 1:
            return "kept", f"likely, after {each.blocks} blocks"
        return "no gain", self.bench.doubt(each.stack.name) if ratio.value is None else None

    def compare(self) -> Comparing:
        """All that was measured so far, as ratios; fitted once a block, because nothing else changes it."""
        if self._compared is None or self._compared[0] != self._block:
            self._compared = (self._block, Comparing(self.bench.observations(), self.bench.points))
        return self._compared[1]

    def ratio(self, one: Stack, other: Stack) -> Estimate:
        """The goal of one stack over the other's."""
        return self.compare().ratio(one.name, other.name, CONFIDENCE)

    def gain(self, one: Stack, other: Stack) -> float:
        """The estimate of that ratio alone; 0 where there is none, so that the unknown comes last."""
        return self.ratio(one, other).value or 0.0

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
        risky = frozenset(each.name for each in stack.pulls if changes_answers(each.risk))
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

    def _note(self, stack: Stack, against: Stack, stage: Stage, varied: str) -> Tried:
        self.stacks[stack.name] = stack
        self.tried.append(Tried(self._round, stage, stack, against.name, varied))
        return self.tried[-1]

    def _refuse(self, tried: Tried, why: str) -> None:
        tried.fate, tried.reason = "failed", why
        self.refused[tried.stack.name] = ("failed", why)
        self.tell(f"{tried.stack.said()} does not serve: {why}")

    def _known(self, each: Tried, against: Stack) -> bool:
        """Whether earlier rounds show already that it is slower, or held just these two against each other. Faster is
        believed only side by side.
        """
        if self._failed(each):
            return True
        fate = _decided(self.ratio(each.stack, against), self._measured[each.stack.name], self.settings.least_blocks)
        before = self._settled.get((each.stack.name, against.name))
        if before is None and self._settled.get((against.name, each.stack.name)) == "kept":
            before = "slower"
        if fate != "slower" and before is None:
            return False
        each.fate, each.reason = fate or before or "no gain", "decided by the blocks of earlier rounds"
        return True

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

    def _dear(self, arms: int) -> bool:
        """Whether one more block of so many is too large a share of the time left to be spent on this race alone."""
        return self._per_arm_s * arms > self.settings.block_share * self.bench.left_s

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
