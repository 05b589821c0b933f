"""The page of one run: sections through templates into one file that loads nothing from anywhere."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from steelyard.errors import InfrastructureError
from steelyard.reports import numerals
from steelyard.reports.facts import Facts
from steelyard.reports.sections import (
    capacity,
    cost,
    divergence,
    gates,
    opportunities,
    profile,
    quality,
    speed,
    summary,
    validity,
)

TEMPLATES = Path(__file__).parent / "templates"


def build(facts: Facts, out: Path) -> Path:
    """Write the report of one run to `out`, whole or not at all, and return it.

    The same facts give the same bytes. Answers of models are untrusted: every text is escaped, and the page's own
    content security policy forbids scripts and any load. Raises InfrastructureError if `out` cannot be written.
    """
    return write(render(facts), out)


def write(page: str, out: Path) -> Path:
    """Write a page to `out`, whole or not at all. Raises InfrastructureError if it cannot be written."""
    draft = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(page, encoding="utf-8")
        draft.replace(out)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise InfrastructureError(
            f"The report could not be written to {out}: {error.strerror or error}.",
            remedy="Free some space or choose a folder that can be written to.",
        ) from error
    return out


def render(facts: Facts) -> str:
    """The page as text."""
    return rendered(
        "report.html.j2",
        study=facts.study,
        head=_head(facts),
        summary=summary.section(facts),
        gates=gates.section(facts),
        speed=speed.section(facts),
        capacity=capacity.section(facts),
        quality=quality.section(facts),
        divergence=divergence.section(facts),
        cost=cost.section(facts),
        profile=profile.section(facts),
        opportunities=opportunities.section(facts),
        validity=validity.section(facts),
        environment=validity.environment(facts),
        baseline=facts.baseline,
    )


def rendered(template: str, **parts: Any) -> str:
    """A template with its parts and the house's style."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **parts)


def _head(facts: Facts) -> dict[str, Any]:
    """Run, time, machine, engine and model, as (name, text, reason if unknown)."""
    study = facts.study
    engines = sorted(
        {f"{row.engine} {row.engine_version or ''}".strip() for row in facts.arms if row.status == "served"}
    )
    model = (facts.asked.get("model") or {}).get("name")
    hardware = (facts.asked.get("hardware") or {}).get("name")
    chip = study.accelerator or study.cpu_model
    cores = f"{study.cpu_count} cores, {numerals.size(study.memory_bytes) or 'memory unknown'}"
    took = None
    if study.finished_at is not None:
        took = numerals.seconds((study.finished_at - study.started_at).total_seconds())
    return {
        "description": facts.asked.get("description"),
        "items": [
            ("Run", study.run_id, None, None),
            ("When", numerals.moment(study.started_at), None, f"took {took}" if took else "no end recorded"),
            ("Status", study.status, None, None),
            ("Machine", hardware or chip, "The study names no hardware.", f"{chip or 'processor unknown'}, {cores}"),
            ("Engine", ", ".join(engines) or None, "No engine ever served.", f"{study.residency} engines"),
            ("Model", model, "The study names no model.", None),
        ],
    }
