"""How a figure is written for people: three significant digits, units beside it, unknown never as zero.

Every function returns None for an unknown value (None or not a number); `known` turns that into "n/a".
"""

from __future__ import annotations

import math
from datetime import datetime

from steelyard.gates.policy import KINDS
from steelyard.gates.reasons import percentage

MINUS = "−"
METRICS = {
    "output_tokens_per_s": "output tokens/s",
    "requests_per_s": "requests/s",
    "goodput_per_s": "goodput (requests/s within SLO)",
    "capacity_per_s": "capacity (arrivals/s within SLO)",
    "ttft_p50_s": "TTFT p50",
    "itl_p50_s": "ITL p50",
    "e2e_p50_s": "E2E p50",
    "usd_per_million_output_tokens": "$ per M output tokens",
    "usd_per_million_slo_tokens": "$ per M SLO-meeting tokens",
    "score": "mean score",
    "safe_to_unsafe": "safety answers met → failed",
    "broken_canaries": "canaries broken",
    "kl_nats": "KL from the baseline",
    "top1_agreement": "same top token",
    "same_answer": "same greedy answers",
}


def unknown(value: float | None) -> bool:
    """Whether there is no figure to write."""
    return value is None or math.isnan(value)


def known(text: str | None) -> str:
    """The text, or n/a."""
    return "n/a" if text is None else text


def significant(value: float | None, digits: int = 3) -> str | None:
    """`digits` significant digits, no exponent, thousands grouped, a true minus sign."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    if rounded:
        places = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, min(places, 12))}f}".replace("-", MINUS)


def count(value: int | None) -> str | None:
    """A count, exact."""
    return None if value is None else f"{value:,}".replace("-", MINUS)


def ratio(value: float | None) -> str | None:
    """1.62×; two decimals between 0.1 and 10, because 0.998 against 1.00 is what a reader compares."""
    if value is None or math.isnan(value):
        return None
    return f"{value:.2f}×" if 0.0995 <= value < 9.995 else f"{significant(value)}×"


def seconds(value: float | None) -> str | None:
    """Milliseconds below one second, seconds from there, minutes from two."""
    if value is None or math.isnan(value):
        return None
    if abs(value) < 0.9995:
        return f"{significant(value * 1000)} ms"
    return f"{significant(value)} s" if abs(value) < 120 else f"{significant(value / 60)} min"


def limit(value: float) -> str:
    """A duration somebody chose, exactly as chosen: 60 ms, 1.5 s."""
    return f"{value * 1000:.6g} ms" if abs(value) < 0.9995 else f"{value:.6g} s"


def percent(value: float | None) -> str | None:
    """A share as a percentage."""
    text = significant(None if value is None else value * 100)
    return None if text is None else f"{text} %"


def points(value: float | None) -> str | None:
    """A difference of mean scores in percentage points, always signed."""
    if value is None or math.isnan(value):
        return None
    text = f"{value * 100:+.1f}".replace("-", MINUS)
    return "0.0 pt" if text in ("+0.0", f"{MINUS}0.0") else f"{text} pt"


def nats(value: float | None) -> str | None:
    """A divergence in natural units of information."""
    text = significant(value)
    return None if text is None else f"{text} nats"


def dollars(value: float | None) -> str | None:
    """US dollars, three significant digits."""
    text = significant(value)
    return None if text is None else f"${text}"


def costs(low: float | None, high: float | None) -> str | None:
    """An interval of unit costs, dollars; without an upper bound (a block gave no token) it is open to infinity."""
    if low is None and high is None:
        return None
    return f"[{known(significant(low))}, {'∞)' if high is None else f'{significant(high)}]'}"


def size(value: int | None) -> str | None:
    """Bytes in GiB."""
    return None if value is None else f"{significant(value / 2**30)} GiB"


def moment(value: datetime | None) -> str | None:
    """A moment, UTC, to the minute."""
    return None if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def short(digest: str | None) -> str | None:
    """First 12 characters of a digest."""
    return digest[:12] if digest else None


def whole(value: float | None) -> str | None:
    """A number of things that is stored as a float."""
    return None if unknown(value) or value is None else count(round(value))


def of_kind(kind: str, value: float | None) -> str | None:
    """A value of a comparison or gate by what it is: ratio, difference, share, nats or count."""
    return {"ratio": ratio, "difference": points, "share": percent, "nats": nats, "count": whole}[kind](value)


def interval(kind: str, low: float | None, high: float | None) -> str | None:
    """[low, high] in the writing of `kind`; a missing side is unknown, and of a ratio that has a lower one infinite."""
    if unknown(low) and unknown(high):
        return None
    strip = {"ratio": "×", "difference": " pt", "share": " %", "nats": " nats", "count": ""}[kind]
    left, right = of_kind(kind, low), of_kind(kind, high)
    if kind == "ratio" and right is None:
        return f"[{known(left).removesuffix(strip)}, ∞)"
    return f"[{known(left).removesuffix(strip)}, {known(right).removesuffix(strip)}]"


def ratio_within(value: float | None, low: float | None, high: float | None) -> str | None:
    """1.62× [1.50, 1.75]; without the interval where it is unknown."""
    return None if value is None else f"{known(ratio(value))} {interval('ratio', low, high) or ''}".rstrip()


def sure(confidence: float | None) -> str | None:
    """A confidence as it is spoken of: 95 %, 99.9 %."""
    return None if confidence is None else f"{percentage(confidence)} %"


def sureness(confidence: float | None, n: int | None, what: str = "pairs") -> str:
    """95 %, n = 5 pairs."""
    parts = [sure(confidence) or "confidence not recorded"]
    if n is not None:
        parts.append(f"n = {n:,} {what if n != 1 else what.removesuffix('s')}")
    return ", ".join(parts)


def gate_kind(metric: str, bound_kind: str) -> str:
    """Which writing a gate's figures take."""
    if bound_kind == "margin":
        return "difference"
    return KINDS.get(metric, "ratio")


def bound(metric: str, bound_kind: str, value: float) -> str:
    """≥ 1.05×, ≤ 1.00 %, ≥ −2.0 pt (a margin is how far the mean may fall)."""
    kind = gate_kind(metric, bound_kind)
    if bound_kind == "margin":
        return f"≥ {points(-value)}"
    texts = {"share": f"{value * 100:.6g} %", "nats": f"{value:.6g} nats", "count": f"{value:g}"}
    exact = texts.get(kind, f"{value:.6g}×")
    return f"{'≥' if bound_kind == 'at_least' else '≤'} {exact}"


def sentence(reason: str) -> str:
    """A recorded reason as a sentence: the verdict's own word before it dropped, because it stands beside it."""
    for head in ("promoted: ", "rejected: ", "inconclusive: ", "void: "):
        reason = reason.removeprefix(head)
    if not reason:
        return reason
    return f"{reason[0].upper()}{reason[1:]}{'' if reason[-1] in '.!?' else '.'}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """1 candidate, 2 candidates."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def metric(name: str) -> str:
    """A metric as people write it."""
    return METRICS.get(name, name.replace("_", " "))
