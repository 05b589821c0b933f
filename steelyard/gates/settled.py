"""What is decided while a study still measures: where an arm may stop, because more of the same would change nothing.

It asks the very gates that judge at the end. So stopping needs no rule of its own, and a verdict computed from what was
stored comes out as it stood when the measuring stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.gates.policy import Policy
from steelyard.records import GateRow
from steelyard.stats.sequential import Looks

DECIDED = ("pass", "fail")


@dataclass(frozen=True, slots=True)
class Settled:
    """Of one arm: why it is rejected already, if it is; the scopes where a required gate is still open; and the
    categories of the required guards that failed, which is harm seen.
    """

    rejected: str | None
    open: frozenset[str]
    failed: frozenset[str]


def settled(gates: Sequence[GateRow]) -> Settled:
    """What the gate rows of one arm leave open. A required gate that fails rejects the arm for good.

    Divergence gates never leave anything open: what they do not reject now, they will not reject later.
    """
    required = [row for row in gates if row.required]
    failed = [row for row in required if row.outcome == "fail"]
    undecided = {row.scope for row in required if row.outcome not in DECIDED and row.category != "divergence"}
    return Settled(
        rejected=failed[0].reason if failed else None,
        open=frozenset(undecided),
        failed=frozenset(row.category for row in failed if not row.benefit),
    )


def looks_of(policy: Policy, blocks: int) -> Looks | None:
    """The looks at a study's blocks; None where the policy looks once, at the end."""
    return Looks(min(policy.min_blocks, blocks), blocks) if policy.stop_early else None
