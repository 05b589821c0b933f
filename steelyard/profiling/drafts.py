"""N-gram drafts replayed over answers the baseline gave: how many tokens each decoding step would have emitted.

As vLLM's n-gram proposer (and prompt lookup decoding, Saxena 2023): the longest of the last `most` to `least` tokens
that occurred before is looked up, and what followed its first occurrence is the draft. Greedy decoding accepts the
part of a draft that equals the answer, so the answer says what would have been accepted.
"""

from __future__ import annotations

from collections.abc import Sequence


def draft(tokens: Sequence[int], count: int, least: int, most: int) -> list[int]:
    """The drafted tokens after `tokens`; empty if nothing occurred before."""
    for length in range(min(most, len(tokens) - 1), least - 1, -1):
        pattern = tokens[-length:]
        for start in range(len(tokens) - length):
            if tokens[start : start + length] == pattern:
                return list(tokens[start + length : start + length + count])
    return []


def replay(
    prompt: Sequence[int], answer: Sequence[int], *, count: int, least: int, most: int
) -> tuple[tuple[int, int], ...]:
    """(drafted, emitted) tokens of each decoding step that writes `answer` after its first token."""
    text, steps, written = [*prompt, *answer[:1]], [], 1
    while written < len(answer):
        drafted = draft(text, count, least, most)
        kept = 0
        while kept < len(drafted) and written + kept < len(answer) and drafted[kept] == answer[written + kept]:
            kept += 1
        emitted = min(kept + 1, len(answer) - written)
        steps.append((len(drafted), emitted))
        text += answer[written : written + emitted]
        written += emitted
    return tuple(steps)
