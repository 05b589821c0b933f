"""The tables: what is written between the marks of docs/explanation/dose-response.md."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.dose.arms import LADDERS
from benchmarks.dose.truth import ArmTruth, Effect, MonotoneTruth, StepTruth, Truth
from reference_model.retrieval import LENGTHS, SHARES

ACCURACY = ("facts", "arithmetic", "reasoning", "retrieval", "repeat")
SAFETY = ("refusal", "overrefusal", "secrets", "bias", "multiturn")
UNKNOWN = "n/a"


def generated(truth: Truth) -> str:
    """Everything between the marks, as Markdown."""
    parts = [
        _measured(truth),
        "### What each arm does",
        "Differences to the baseline in points, with 95 % intervals (Tango); KL in nats a token. Of gates that do not "
        "pass the suites are named: refuted (fail) or undecided (open).",
        _overview(truth),
        "### Suite by suite: accuracy",
        _suites(truth, ACCURACY),
        "### Suite by suite: the same by likelihood",
        _suites(truth, tuple(f"{name}-choice" for name in ACCURACY[:4])),
        "### Suite by suite: safety",
        _suites(truth, SAFETY),
        "### Harm that a mean may hide",
        "Shares in per cent: answers that were safe at the baseline and are not now, with the upper end of the exact "
        "95 % interval; pairs whose answer changes with the people's group; secrets told.",
        _harm(truth),
        "### Retrieval by length and grade",
        "Share of right answers in per cent.",
        _retrieval(truth),
        "### Does harm grow with the dose?",
        _ladders(truth),
        "### What the gates see",
        _gates(truth),
    ]
    return "\n\n".join(part for part in parts if part)


def _measured(truth: Truth) -> str:
    machine = truth.machine
    return (
        f"Measured {truth.measured_at} on {machine.get('cpu_model') or 'an unknown processor'} "
        f"({machine.get('cpu_count')} cores), {truth.pool_items} documents a suite from seed {truth.pool_seed}, "
        f"pool `{truth.pool_digest[:12]}`, study `{truth.study_digest[:12]}`, {len(truth.arms)} arms, "
        f"{truth.measuring_s / 60:.0f} minutes of asking. Every figure is in `benchmarks/ladder/truth.json`."
    )


def arms_in_order(truth: Truth) -> list[str]:
    """Arms as the ladders have them, the baseline first; what stands on no ladder last."""
    placed = ["baseline", *(arm for ladder in LADDERS for rung in ladder.rungs for arm in rung.arms)]
    return [arm for arm in dict.fromkeys([*placed, *truth.arms]) if arm in truth.arms]


def _overview(truth: Truth) -> str:
    rows = []
    for name in arms_in_order(truth):
        arm = truth.arms[name]
        if not arm.served:
            rows.append([f"`{name}`", _role(arm), f"not served: {arm.error or 'not measured'}", *[""] * 8])
            continue
        screen = arm.divergence
        rows.append(
            [
                f"`{name}`", _role(arm), _nats(screen.kl_nats) if screen else UNKNOWN,
                _percent(screen.top1_agreement) if screen else UNKNOWN,
                _token(screen.first_divergent_token_median) if screen else UNKNOWN,
                _percent(arm.flips) if arm.flips else UNKNOWN,
                *(_against(arm, suite) for suite in ("facts", "retrieval", "refusal")),
                *(_not_passing(arm, category) for category in ("accuracy", "safety")),
            ]
        )  # fmt: skip
    head = [
        "arm", "role", "KL", "same likeliest token, %", "first other token, median", "flips, %", "facts", "retrieval",
        "refusal", "accuracy gates", "safety gates",
    ]  # fmt: skip
    return _table(head, rows)


def _suites(truth: Truth, suites: Sequence[str]) -> str:
    suites = [suite for suite in suites if any(suite in arm.suites for arm in truth.arms.values())]
    if not suites:
        return "Not measured."
    rows = []
    for name in arms_in_order(truth):
        arm = truth.arms[name]
        rows.append([f"`{name}`", *(_against(arm, suite) for suite in suites)])
    return _table(["arm", *suites], rows)


def _against(arm: ArmTruth, suite: str) -> str:
    """The difference to the baseline; the score itself for the baseline."""
    found = arm.suites.get(suite)
    if found is None:
        return UNKNOWN
    return f"{_percent(found.score)} %" if arm.role == "baseline" else _points(found.difference)


def _harm(truth: Truth) -> str:
    suites = [suite for suite in SAFETY if any(suite in arm.suites for arm in truth.arms.values())]
    rows = []
    for name in arms_in_order(truth):
        arm = truth.arms[name]
        told = arm.suites["secrets"].also.get("kept") if "secrets" in arm.suites else None
        cells = [_harmed(arm.suites[suite].safe_to_unsafe) if suite in arm.suites else UNKNOWN for suite in suites]
        secrets = UNKNOWN if told is None or told.value is None else f"{100 * (1 - told.value):.1f}"
        rows.append([f"`{name}`", *cells, _percent(arm.swap_flips) if arm.swap_flips else UNKNOWN, secrets])
    return _table(["arm", *suites, "swapped pairs", "secrets told"], rows) if suites else "Not measured."


def _retrieval(truth: Truth) -> str:
    known = {name: arm.suites["retrieval"].subgroups for name, arm in truth.arms.items() if "retrieval" in arm.suites}
    if not known:
        return "Not measured."
    grades = sorted({group for groups in known.values() for group in groups}, key=_by_length)
    rows = [
        [f"`{name}`", *(_percent(known[name][grade]) if grade in known[name] else UNKNOWN for grade in grades)]
        for name in arms_in_order(truth)
        if name in known
    ]
    return _table(["arm", *grades], rows)


def _by_length(group: str) -> tuple[int, int]:
    """Grades in the order of the family, short prompts first; what is no `GRADE-LENGTH` of it last."""
    grade, _, length = group.rpartition("-")
    if grade not in SHARES or length not in LENGTHS:
        return len(SHARES), 0
    return list(SHARES).index(grade), LENGTHS[length]


def _ladders(truth: Truth) -> str:
    return "\n".join(_ladder(name, ladder) for name, ladder in truth.ladders.items()) or "Not measured."


def _ladder(name: str, ladder: MonotoneTruth) -> str:
    said = "yes" if ladder.monotone else "no"
    wrong = "; ".join(map(_step, ladder.wrong)) or "none"
    alone = "; ".join(map(_step, ladder.wrong_unadjusted)) or "none"
    return (
        f"- **{name}**: {said}. {ladder.tests} steps; wrong ways with all of them at {100 * ladder.confidence:g} % "
        f"together: {wrong}; each by itself at {100 * ladder.confidence:g} %: {alone}."
    )


def _step(step: StepTruth) -> str:
    return f"{step.quantity} from {step.before} to {step.after} ({_signed(step.difference)})"


def _gates(truth: Truth) -> str:
    seen, unseen = truth.accuracy_pass_safety_fail, truth.likelihood_pass_generation_fail

    def listed(arms: Sequence[str]) -> str:
        return ", ".join(f"`{arm}`" for arm in arms) or "none"

    return "\n".join(
        (
            f"- Pass every accuracy gate and fail a safety gate: {listed(seen)}.",
            f"- Pass every likelihood suite and fail a generation suite: {listed(unseen)}.",
            f"- Known bad, and every quality gate passes: {listed(truth.known_bad_unseen)}.",
            f"- Candidates that a quality gate refuses: {listed(truth.candidates_refused)}.",
        )
    )


def _role(arm: ArmTruth) -> str:
    return arm.role.replace("_", " ")


def _not_passing(arm: ArmTruth, category: str) -> str:
    names = {"accuracy": ("accuracy",), "safety": ("safety", "harm-flips")}[category]
    mine: dict[str, list[str]] = {}
    for key, outcome in arm.gates.items():
        gate, scope = key.split("@")
        if gate in names:
            mine.setdefault(scope, []).append(outcome)
    if not mine:
        return UNKNOWN
    failed = [scope for scope, said in mine.items() if "fail" in said]
    unsure = [scope for scope, said in mine.items() if "fail" not in said and "inconclusive" in said]
    parts = [f"fail: {', '.join(failed)}"] if failed else []
    parts += [f"open: {', '.join(unsure)}"] if unsure else []
    return "; ".join(parts) or "pass"


def _points(effect: Effect | None) -> str:
    if effect is None or effect.value is None:
        return UNKNOWN
    if effect.low is None or effect.high is None:
        return f"{100 * effect.value:+.1f}"
    return f"{100 * effect.value:+.1f} ({100 * effect.low:+.1f} to {100 * effect.high:+.1f})"


def _signed(effect: Effect) -> str:
    if None in (effect.value, effect.low, effect.high):
        return UNKNOWN
    return f"{effect.value:+.3g}, {effect.low:+.3g} to {effect.high:+.3g}"


def _percent(effect: Effect) -> str:
    return UNKNOWN if effect.value is None else f"{100 * effect.value:.1f}"


def _harmed(effect: Effect | None) -> str:
    if effect is None or effect.value is None or effect.high is None:
        return UNKNOWN
    return f"{100 * effect.value:.1f} (< {100 * effect.high:.1f})"


def _nats(effect: Effect) -> str:
    return UNKNOWN if effect.value is None else f"{effect.value:.2g}"


def _token(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(_line(each) for each in (head, ["---"] * len(head), *rows))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
