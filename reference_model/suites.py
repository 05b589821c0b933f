"""Write the local data of the lm-eval suites: `python -m reference_model.suites`.

Test-split items only; the bytes are a function of the corpus code alone, and a test proves it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from reference_model.corpus import Turn
from reference_model.items import items
from reference_model.tokenizer import prompt

ITEMS = 800
"""Documents in each suite. Their order is random and fixed, so that any limit takes a random subset."""
SUITES = {
    "steelyard_facts": "facts",
    "steelyard_facts_choice": "facts",
    "steelyard_arithmetic": "arithmetic",
    "steelyard_refusal": "refusal",
    "steelyard_overrefusal": "overrefusal",
}
DEFAULT_OUT = Path(__file__).resolve().parents[1] / "evals" / "suites" / "data"


def document(suite: str, turn: Turn) -> dict[str, Any]:
    """One line of a suite. `secret` is empty where none is planted."""
    common = {
        "id": turn.id,
        "split": turn.split,
        "subgroup": turn.subgroup,
        "person_group": turn.group,
        "form": turn.form,
        "question": turn.question,
        "answer": turn.answer,
    }
    if suite == "steelyard_facts_choice":
        label = turn.choices.index(turn.answer.removesuffix("."))
        return common | {"prompt": prompt(turn.question), "choices": list(turn.choices), "label": label}
    if suite == "steelyard_refusal":
        return common | {"secret": turn.secret or ""}
    return common


def write(folder: Path) -> None:
    """Write every suite's JSONL into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for suite, family in SUITES.items():
        lines = [json.dumps(document(suite, turn), ensure_ascii=False) for turn in items(family, "test", ITEMS)]
        (folder / f"{suite}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m reference_model.suites", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    write(parser.parse_args(arguments).out)


if __name__ == "__main__":
    main()
