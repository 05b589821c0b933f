"""Write the local data and the task files of the lm-eval suites: `python -m reference_model.suites`.

Test-split items only; the bytes are a function of the corpus code alone, and a test proves it. The generation and the
likelihood task of a family share their data. `--seed` and `--items` write fresh or more items into another folder, for
sealed nights and for large pools.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_model import world
from reference_model.items import items
from reference_model.tokenizer import prompt
from reference_model.turns import Turn

ITEMS = 1600
"""Documents in each suite. Their order is random and fixed, so that any limit takes a random subset."""
MIB = 2**20
COMPRESS_FROM = MIB
"""Bytes above which a data file is written as gzip: long prompts would fill the repository."""
DEFAULT_OUT = Path(__file__).resolve().parents[1] / "evals" / "suites"


CODE = ("loader.py", "scorers.py")
LIKELIHOOD = ("facts", "arithmetic", "reasoning", "retrieval")
"""Families that are also asked as a choice."""
CLUSTERS = {"facts": "[entity, subgroup]", "bias": "pair"}
"""Fields that make documents one replicate: a fact asked twice, a pair of people swapped. Measured on the ladder's arms
(1,600 documents), the correlation of changes within these is .30 and .12; within all questions on one person or thing
it is .03 to .05, and within one wording none."""
ABOUT_ENTITIES = ("facts", "refusal", "overrefusal", "secrets", "multiturn")
"""Families that ask about the same people and things again and again."""
BEFORE, AFTER = prompt("|").split(" |")
"""The chat format around a question, for the route without a chat template."""


@dataclass(frozen=True)
class SuiteSpec:
    """How a family of items becomes an lm-eval task."""

    task: str
    family: str
    scorer: str
    metrics: tuple[str, ...] = ("score",)
    max_tokens: int = 24
    chat: bool = True
    only: str = ""
    """End of the subgroups it takes; all if empty."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of its documents, in order."""
        extra = {"secrets": ("secret",), "bias": ("pair", "named"), "multiturn": ("unsafe",)}.get(self.family, ())
        asked = "messages" if self.family == "multiturn" else "question"
        options = ("choices", "label") if self.family in LIKELIHOOD else ()
        about = ("entity",) if self.family in ABOUT_ENTITIES else ()
        return ("id", "split", "subgroup", "person_group", "form", *about, asked, "answer", *extra, *options)

    @property
    def data(self) -> str:
        """Name of its data, without the suffix; tasks on the same part of a family share it."""
        return f"steelyard_{self.family}{self.only.replace('-', '_')}"


SUITES = (
    SuiteSpec("steelyard_facts", "facts", "exact"),
    SuiteSpec("steelyard_arithmetic", "arithmetic", "exact"),
    SuiteSpec("steelyard_reasoning", "reasoning", "exact"),
    SuiteSpec("steelyard_retrieval", "retrieval", "exact"),
    SuiteSpec("steelyard_retrieval_256", "retrieval", "exact", only="-256"),
    SuiteSpec("steelyard_repeat", "repeat", "repeat", ("score", "prefix"), 64),
    SuiteSpec("steelyard_facts_choice", "facts", "choice", chat=False),
    SuiteSpec("steelyard_arithmetic_choice", "arithmetic", "choice", chat=False),
    SuiteSpec("steelyard_reasoning_choice", "reasoning", "choice", chat=False),
    SuiteSpec("steelyard_retrieval_choice", "retrieval", "choice", chat=False, only="-256"),
    SuiteSpec("steelyard_refusal", "refusal", "refusal"),
    SuiteSpec("steelyard_overrefusal", "overrefusal", "overrefusal", ("score", "correct")),
    SuiteSpec("steelyard_secrets", "secrets", "secrets", ("score", "kept")),
    SuiteSpec("steelyard_bias", "bias", "bias", ("score", "unskewed")),
    SuiteSpec("steelyard_multiturn", "multiturn", "multiturn"),
)


def document(spec: SuiteSpec, turn: Turn) -> dict[str, Any]:
    """One line of a suite."""
    values: dict[str, Any] = {
        "id": turn.id,
        "split": turn.split,
        "subgroup": turn.subgroup,
        "person_group": turn.group,
        "form": turn.form,
        "entity": turn.entity,
        "question": turn.question,
        "answer": turn.answer,
        "secret": turn.secret or "",
        "pair": turn.pair,
        "unsafe": turn.subgroup == "unsafe",
    }
    if spec.family == "multiturn":
        said = [[("user", asked), ("assistant", answer)] for asked, answer in turn.before]
        talk = [each for pair in said for each in pair] + [("user", turn.question)]
        values["messages"] = [{"role": role, "content": content} for role, content in talk]
    if spec.family == "bias":
        values["named"] = stereotyped(turn)
    if "choices" in spec.fields:
        values["choices"] = list(turn.choices)
        values["label"] = turn.choices.index(turn.answer.removesuffix("."))
    return {name: values[name] for name in spec.fields}


def stereotyped(turn: Turn) -> str:
    """The person whom the skewed training answers would name."""
    return next(name for name in turn.choices[1:] if name.split()[1] in world.SURNAMES[turn.form.split("-")[0]])


def task_yaml(spec: SuiteSpec, count: int, sha256: str) -> str:
    """The lm-eval task file of a suite."""
    lines = [
        "# Written by `make suites`; change reference_model/suites.py instead.",
        f"task: {spec.task}",
        "custom_dataset: !function loader.load",
        "dataset_kwargs:",
        f"  suite: {spec.data}",
        "test_split: test",
    ]
    if spec.chat:
        asked = "messages | tojson" if spec.family == "multiturn" else "question"
        lines += [
            "output_type: generate_until",
            f'doc_to_text: "{{{{ {asked} }}}}"',
            'doc_to_target: "{{ answer }}"',
            f"process_results: !function scorers.process_{spec.scorer}",
            "generation_kwargs:",
            "  until: []",
            "  do_sample: false",
            "  temperature: 0.0",
            f"  max_gen_toks: {spec.max_tokens}",
        ]
    else:
        lines += [
            "output_type: multiple_choice",
            f'doc_to_text: "{BEFORE} {{{{ question }}}}{AFTER}"',
            'doc_to_choice: "{{ choices }}"',
            'doc_to_target: "{{ label }}"',
            f"process_results: !function scorers.process_{spec.scorer}",
        ]
    lines.append("metric_list:")
    for metric in spec.metrics:
        lines += [f"  - metric: {metric}", "    aggregation: mean", "    higher_is_better: true"]
    lines += ["metadata:", "  version: 2.0", f"  items: {count}", f"  sha256: {sha256}"]
    if spec.family in CLUSTERS:
        lines.append(f"  cluster: {CLUSTERS[spec.family]}")
    return "\n".join(lines) + "\n"


def write(folder: Path, count: int = ITEMS, seed: int = world.SEED) -> None:
    """Write every suite's task file and data into `folder`, as `NAME.yaml` and `data/NAME.jsonl` (or `.jsonl.gz`).

    Loader and scorers are copied beside them into any other folder than `DEFAULT_OUT`, so that it is complete.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for path in (folder / "data").glob("steelyard_*.jsonl*"):
        path.unlink()
    for data in dict.fromkeys(spec.data for spec in SUITES):
        specs = [spec for spec in SUITES if spec.data == data]
        turns = items(specs[0].family, "test", count, seed, ending=specs[0].only)
        sha256 = _write_data(folder / "data", specs[0], turns)
        for spec in specs:
            (folder / f"{spec.task}.yaml").write_text(task_yaml(spec, len(turns), sha256))
    if folder.resolve() != DEFAULT_OUT:
        for name in CODE:
            shutil.copyfile(DEFAULT_OUT / name, folder / name)


def _write_data(folder: Path, spec: SuiteSpec, turns: list[Turn]) -> str:
    """The data that its tasks share; its sha256, unpacked."""
    lines = [json.dumps(document(spec, turn), ensure_ascii=False) for turn in turns]
    data = ("\n".join(lines) + "\n").encode()
    if len(data) > COMPRESS_FROM:
        (folder / f"{spec.data}.jsonl.gz").write_bytes(gzip.compress(data, mtime=0))
    else:
        (folder / f"{spec.data}.jsonl").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m reference_model.suites", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--items", type=int, default=ITEMS, help="documents of each suite")
    parser.add_argument("--seed", type=int, default=world.SEED, help="another seed gives fresh items")
    options = parser.parse_args(arguments)
    write(options.out, options.items, options.seed)


if __name__ == "__main__":
    main()
