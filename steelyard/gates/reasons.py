"""Gate outcomes in plain English, with figures rounded so that they never contradict the outcome."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from steelyard.gates.policy import QUALITY, Gate
from steelyard.records import ComparisonRow

PHRASES: Mapping[str, str] = {
    "output_tokens_per_s": "output tokens/s",
    "requests_per_s": "requests/s",
    "goodput_per_s": "goodput (requests/s within the SLO)",
    "capacity_per_s": "capacity (arrivals/s at which the SLO holds)",
    "ttft_p50_s": "median TTFT",
    "itl_p50_s": "median ITL",
    "e2e_p50_s": "median E2E latency",
    "usd_per_million_output_tokens": "cost per million output tokens",
    "usd_per_million_slo_tokens": "cost per million SLO-meeting tokens",
    "score": "score",
    "safe_to_unsafe": "answers that met the safety suite {suite} at the baseline and fail it now",
    "broken_canaries": "canaries of suite {suite} that held at the baseline and do not now",
    "kl_nats": "KL divergence from the baseline",
    "top1_agreement": "agreement with the baseline on the likeliest token",
    "same_answer": "greedy answers that are the baseline's token for token",
}


NOT_COMPARED = "it was not compared with the baseline"
"""Why a gate has no evidence where nothing was measured, or one side of it."""


def percentage(confidence: float) -> str:
    """A confidence in percent, to as many decimals as tell it from certainty: 95, 96.96, 99.9976."""
    error = 100 * (1 - confidence)
    places = 2 if error <= 0 else max(2, 2 - math.floor(math.log10(error)))
    text = f"{100 * confidence:.{places}f}"
    return text.rstrip("0").rstrip(".")


def decimals(values: Iterable[float | None], *, against: float, least: int) -> int:
    """Decimals, `least` to 6, at which every value still stands on the same side of `against` as it really does."""
    given = [value for value in values if value is not None]
    for places in range(least, 6):
        shown = [round(value, places) for value in given]
        if all(
            (show > against) == (value > against) and (show < against) == (value < against)
            for show, value in zip(shown, given, strict=True)
        ):
            return places
    return 6


def subject(gate: Gate, scope: str) -> str:
    """What a gate looks at, as people say it: `output tokens/s at chat@c8`, `score of suite refusal`."""
    phrase = PHRASES[gate.metric]
    if "{suite}" in phrase:
        return phrase.format(suite=scope)
    if gate.category == "divergence":
        return phrase
    if gate.category in QUALITY:
        return f"{phrase} of suite {scope}"
    return f"{phrase} at {scope}"


def bound_of(gate: Gate) -> tuple[str, float]:
    """The kind of the gate's bound and its value."""
    for kind in ("at_least", "at_most", "margin"):
        value = getattr(gate, kind)
        if value is not None:
            return kind, float(value)
    raise AssertionError("the policy admits no gate without a bound")


def explain(gate: Gate, row: ComparisonRow, outcome: str) -> str:
    """What was measured, how sure that is, and what was asked. Needs the row's estimate and both bounds."""
    if gate.metric == "score":
        text = _difference(gate, row)
    elif gate.metric == "safe_to_unsafe":
        text = _share(gate, row)
    elif gate.metric == "broken_canaries":
        return _canaries(gate, row)
    elif gate.category == "divergence":
        text = _screened(gate, row, outcome)
    else:
        text = _ratio(gate, row)
    return text if outcome != "inconclusive" else f"{text}, which is neither proven nor refuted at n = {row.n}"


def _sure(row: ComparisonRow) -> str:
    return f"{percentage(row.confidence)} % interval"


def _ratio(gate: Gate, row: ComparisonRow) -> str:
    kind, bound = bound_of(gate)
    assert row.estimate is not None
    places = decimals((row.estimate, row.low, row.high), against=bound, least=1 if row.estimate >= 2 else 2)
    estimate, low, high = (
        "more" if value is None else f"{value:.{places}f}" for value in (row.estimate, row.low, row.high)
    )
    if float(estimate) == 1:
        change = f"stayed at {estimate} times the baseline's"
    elif row.estimate > 1:
        change = f"rose to {estimate} times the baseline's"
    else:
        change = f"fell to {estimate} of the baseline's"
    asked = "was asked" if gate.benefit or kind == "at_least" else "was allowed"
    limit = "at least" if kind == "at_least" else "at most"
    return f"{subject(gate, row.scope)} {change} ({_sure(row)} {low} to {high}); {limit} {bound:g} {asked}"


def _direction(points: float, text: str) -> str:
    if float(text) == 0:
        return "no change"
    return f"a {'rise' if points > 0 else 'fall'} of {text}"


def _difference(gate: Gate, row: ComparisonRow) -> str:
    _, margin = bound_of(gate)
    assert row.estimate is not None
    assert row.low is not None
    assert row.high is not None
    figures = [100 * value for value in (row.estimate, row.low, row.high)]
    places = decimals(figures, against=-100 * margin, least=1)
    estimate, low, high = (f"{abs(value):.{places}f}" for value in figures)
    if float(estimate) == 0:
        change = "did not change"
    else:
        change = f"{'rose' if figures[0] > 0 else 'fell'} by {estimate} points"
    if figures[0] < 0 and figures[2] < 0 and float(high):
        interval = f"{high} to {low}"
    elif figures[0] > 0 and figures[1] > 0 and float(low):
        interval = f"{low} to {high}"
    else:
        interval = f"{_direction(figures[1], low)} to {_direction(figures[2], high)}"
    counts = "" if row.lost is None or row.gained is None else f", {row.lost} lost and {row.gained} gained of {row.n}"
    return (
        f"{subject(gate, row.scope)} {change} ({_sure(row)} {interval}{counts}); "
        f"a fall of at most {100 * margin:g} points was allowed"
    )


def _share(gate: Gate, row: ComparisonRow) -> str:
    _, bound = bound_of(gate)
    figures = [None if value is None else 100 * value for value in (row.estimate, row.low, row.high)]
    places = decimals(figures, against=100 * bound, least=1)
    estimate, low, high = (f"{value:.{places}f}" for value in figures)
    count = "" if row.lost is None else f"{row.lost} of {row.n}, "
    return (
        f"{subject(gate, row.scope)} were {estimate} % ({count}{_sure(row)} {low} to {high} %); "
        f"at most {100 * bound:g} % was allowed"
    )


def _canaries(gate: Gate, row: ComparisonRow) -> str:
    """A count. What was not asked could still break, and says so."""
    _, bound = bound_of(gate)
    assert row.low is not None
    assert row.high is not None
    left = row.high - row.low
    more = f", {left:.0f} more not known yet" if left else ""
    missing = f", {row.n_missing} of them for want of an answer" if row.n_missing and row.low else ""
    return f"{subject(gate, row.scope)}: {row.low:.0f} of {row.n}{missing}{more}; at most {bound:g} was allowed"


def _screened(gate: Gate, row: ComparisonRow, outcome: str) -> str:
    """A divergence: a pass says only that nothing was proven against the arm."""
    kind, bound = bound_of(gate)
    nats = gate.metric == "kl_nats"
    scale, unit = (1.0, " nats a token") if nats else (100.0, " %")
    figures = [None if value is None else scale * value for value in (row.estimate, row.low, row.high)]
    places = decimals(figures, against=scale * bound, least=4 if nats else 1)
    estimate, low, high = ("" if value is None else f"{value:.{places}f}" for value in figures)
    span = f"{low} to {high}" if high else f"{low} upwards"
    proven = "proven " if outcome == "fail" else "not proven "
    limit = f"{proven}{'above' if kind == 'at_most' else 'below'} the {scale * bound:g}{unit} of the policy"
    missing = f", {row.n_missing} more could not be compared" if row.n_missing else ""
    verb = "were" if gate.metric == "same_answer" else "was"
    sure = f"{_sure(row)} {span}, {row.n} prompts{missing}"
    return f"{subject(gate, row.scope)} {verb} {estimate}{unit} ({sure}): {limit}"
