"""The page of the bench `nights`: each night with its gain and what was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steelyard.reports.markdown import table


def page(
    told: Sequence[Mapping[str, Any]], incidents: Sequence[Mapping[str, Any]], *, burst: int, regression: int,
    slower: float,
) -> str:  # fmt: skip
    """The generated part."""
    marks = {burst: "noise burst", regression: f"from here on the candidate's times are {slower:g} times as long"}
    nights = [
        (
            str(each["night"]),
            ", ".join(f"{gain:.2f}" for gain in each["gains"]),
            marks.get(each["night"], ""),
            "; ".join(event["title"] for event in each["events"] if event["kind"] != "digest") or "the digest only",
        )
        for each in told
    ]
    opened = [
        (
            f"{row['metric']} at {row['scope']} ({row['what']})", str(row["run"]), f"{row['before']:.3g}",
            f"{row['after']:.3g}", row["state"], f"{row['measured_again']:.3g}", "yes" if row["revoked"] else "no",
        )
        for row in incidents
    ]  # fmt: skip
    events = [event for each in told for event in each["events"] if event["kind"] in ("promoted", "revoked")]
    shown = [_quoted(event["title"], event["text"].partition("\n")[2]) for event in events]
    digest = next((event for event in reversed(told[-1]["events"]) if event["kind"] == "digest"), None)
    return "\n\n".join(
        [
            table(("night", "gain of each run", "planted", "told"), nights, right=(0,)),
            "Incidents, with the run that opened them:",
            table(("figure", "run", "before", "after", "state", "measured again", "revoked"), opened, (1, 2, 3, 5)),
            "What was told at once, as it arrived at the webhook:",
            *shown,
            "The digest of the last night:",
            f"```text\n{digest['text']}\n```" if digest else "None.",
        ]
    )


def _quoted(title: str, text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in [f"**{title}**", "", *text.splitlines()])
