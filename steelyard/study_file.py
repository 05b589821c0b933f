"""Read a study, its policy and its price book from YAML, or say everything that is wrong with them.

A study is written by people and read at night, so every problem of all three files is reported at once, each as
`file:line: field: what is wrong. What to do.` Nothing is served and nothing heavy is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from steelyard.digest import digest
from steelyard.errors import InputError
from steelyard.finops.price_book import PriceBook
from steelyard.gates.policy import SCORED, Policy
from steelyard.study import Baseline, Candidate, Control, Study, Suite, Workload
from steelyard.study_capacity import CapacitySearch
from steelyard.study_paths import path_problems
from steelyard.study_problems import explain
from steelyard.study_rules import study_misfits, suggestion
from steelyard.yaml_lines import Document, read, shown

CONFIRMED = "-confirmed"
"""How the names of confirmations end (`steelyard.confirmation`)."""
Parsed = TypeVar("Parsed", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedStudy:
    """A valid study with everything it names.

    `root` is the folder its relative paths start from. `study_digest` covers study, policy and prices as validated, so
    that key order, comments, anchors and written-out defaults do not change it; `policy_digest` the policy alone.
    `source` knows the line of every field, for errors that only an engine can find.
    """

    study: Study
    policy: Policy
    prices: PriceBook
    root: Path
    study_digest: str
    policy_digest: str
    source: Document

    def problem(self, message: str, remedy: str, *loc: str | int) -> InputError:
        """An InputError at a field of the study file."""
        return self.source.problem(message, remedy, loc)


def study_path(folder_or_file: Path) -> Path:
    """The study file meant by a folder or a file."""
    return folder_or_file / "study.yaml" if folder_or_file.is_dir() else folder_or_file


def load_study(folder_or_file: Path) -> LoadedStudy:
    """Read and check a study. Raises one InputError whose `problems` are all problems of its three files."""
    path = study_path(Path(folder_or_file))
    document = read(path, "study")
    problems: list[InputError] = list(document.problems)
    study = validated(document, Study, problems)
    if study is None:
        reported = {str(each) for each in problems}
        problems += [each for each in _rules_of_valid_parts(document) if str(each) not in reported]
    policy_document = _read_named(document, path, "policy", "policy.yaml", problems)
    prices_document = _read_named(document, path, "prices", "prices.yaml", problems)
    policy = validated(policy_document, Policy, problems) if policy_document else None
    prices = validated(prices_document, PriceBook, problems) if prices_document else None
    root = path.resolve().parent
    problems += path_problems(document, root)
    if prices is not None:
        problems += _price_problems(document, prices)
    if policy is not None and policy_document is not None:
        problems += _block_problems(document, policy, policy_document)
        problems += _screen_problems(document, policy, policy_document)
        problems += _canary_problems(document, policy, policy_document)
        problems += _capacity_problems(document, policy, policy_document)
        problems += _seal_problems(document, policy, policy_document)
    if problems or study is None or policy is None or prices is None:
        raise all_at_once(path, problems)
    return LoadedStudy(
        study=study, policy=policy, prices=prices, root=root,
        study_digest=study_digest(study, policy, prices), policy_digest=policy_digest(policy), source=document,
    )  # fmt: skip


def study_digest(study: Study, policy: Policy, prices: PriceBook) -> str:
    """Identity of what was asked: sha256 over the three objects, defaults written out."""
    parts = {"study": study, "policy": policy, "prices": prices}
    return digest({name: part.model_dump(mode="json") for name, part in parts.items()})


def policy_digest(policy: Policy) -> str:
    """Identity of the rules alone; it is frozen before the first measurement."""
    return digest(policy.model_dump(mode="json"))


def all_at_once(path: Path, problems: Sequence[InputError]) -> InputError:
    """One error of all problems of one or several files, in their order and by line."""
    order = {name: index for index, name in enumerate(dict.fromkeys(each.file for each in problems))}
    sorted_problems = sorted(problems, key=lambda each: (order[each.file], each.line or 0))
    count = len(sorted_problems)
    return InputError(
        f"{count} problem{'s' if count != 1 else ''}.",
        remedy="Correct what is listed.",
        file=shown(path),
        problems=sorted_problems,
    )


def validated(document: Document, model: type[Parsed], problems: list[InputError]) -> Parsed | None:
    """Strictly, so that a quoted number or a number for a name is an error instead of a guess."""
    try:
        valid = model.model_validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        problems += explain(error, document, model, taken={(each.line, each.field) for each in document.problems})
        return None
    return valid


def _rules_of_valid_parts(document: Document) -> list[InputError]:
    """Rules between the parts that are valid on their own: pydantic leaves them out once any field is wrong."""

    def part(key: str, kind: Any) -> Any:
        try:
            return TypeAdapter(kind).validate_json(json.dumps(document.data[key]), strict=True)
        except (KeyError, ValidationError):
            return None

    parts = (
        part("baseline", Baseline),
        part("workloads", tuple[Workload, ...]),
        part("candidates", tuple[Candidate, ...]),
        part("controls", tuple[Control, ...]),
        part("suites", tuple[Suite, ...]),
        part("capacity", tuple[CapacitySearch, ...]),
    )
    return [document.problem(each.message, each.remedy, each.at) for each in study_misfits(*parts)]


def _read_named(document: Document, path: Path, key: str, default: str, problems: list[InputError]) -> Document | None:
    """The file the study names under `key`; None, with a problem noted, if it cannot be read."""
    name = document.data.get(key, default)
    if not isinstance(name, str):
        return None
    named = path.parent / name
    if not named.is_file():
        where = "" if key in document.data else f" (`{key}:` is not given, so this is the default)"
        message = f"there is no file {shown(named)}{where}."
        problems.append(document.problem(message, "The path is relative to the study file.", (key,)))
        return None
    try:
        found = read(named, {"policy": "policy", "prices": "price book"}[key])
    except InputError as error:
        problems.append(error)
        return None
    problems += found.problems
    return found


def _price_problems(document: Document, prices: PriceBook) -> list[InputError]:
    hardware = document.data.get("hardware")
    name = hardware.get("price") if isinstance(hardware, dict) else None
    known = [price.name for price in prices.prices]
    if not isinstance(name, str) or name in known:
        return []
    message = f"the price book has no price {name}."
    return [document.problem(message, suggestion(name, known, what="It has"), ("hardware", "price"))]


def _block_problems(document: Document, policy: Policy, policy_document: Document) -> list[InputError]:
    """A policy that asks for more blocks than the study runs could never say anything but inconclusive."""
    blocks = document.data.get("blocks", Study.model_fields["blocks"].default)
    if not isinstance(blocks, int) or isinstance(blocks, bool) or not 2 <= blocks < policy.min_blocks:
        return []
    message = f"the policy {policy_document.file} wants {policy.min_blocks} blocks, the study runs {blocks}."
    return [document.problem(message, f"Write at least {policy.min_blocks}.", ("blocks",))]


def _screen_problems(document: Document, policy: Policy, policy_document: Document) -> list[InputError]:
    """A required divergence gate over a study that measures none could never say anything but inconclusive."""
    gates = [gate.name for gate in policy.gates if gate.category == "divergence" and gate.required]
    if not gates or document.data.get("divergence") is not None:
        return []
    message = f"the policy {policy_document.file} requires {', '.join(gates)}, but the study measures no divergence."
    return [document.problem(message, "Add `divergence: {}` to the study, or drop the gate.", ("divergence",))]


def _canary_problems(document: Document, policy: Policy, policy_document: Document) -> list[InputError]:
    """Canaries that no gate judges, or a required gate on canaries where there are none."""
    suites = document.data.get("suites")
    suites = suites if isinstance(suites, list) else []
    canaries = [at for at, each in enumerate(suites) if isinstance(each, dict) and each.get("category") == "canary"]
    gates = [gate for gate in policy.gates if gate.category == "canary"]
    if canaries and not gates:
        message = f"the policy {policy_document.file} has no canary gate, so nothing would judge this suite."
        remedy = "Add one: category canary, metric broken_canaries, at_most 0."
        return [document.problem(message, remedy, ("suites", at, "category")) for at in canaries]
    required = [gate.name for gate in gates if gate.required]
    if required and not canaries:
        message = f"the policy {policy_document.file} requires {', '.join(required)}, but no suite is a canary."
        return [document.problem(message, "Add a suite of category canary, or drop the gate.", ("suites",))]
    return []


def _capacity_problems(document: Document, policy: Policy, policy_document: Document) -> list[InputError]:
    """A required capacity gate over a study that searches none, or not where a candidate claims its gain."""
    gates = [gate for gate in policy.gates if gate.category == "capacity" and gate.required]
    if not gates:
        return []
    names = ", ".join(gate.name for gate in gates)
    given = document.data.get("capacity")
    searched = [each.get("workload") for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    if not searched:
        message = f"the policy {policy_document.file} requires {names}, but the study searches no capacity."
        return [document.problem(message, "Add a capacity section to the study, or drop the gate.", ("capacity",))]
    if not any(gate.on == "claimed" for gate in gates):
        return []
    candidates = document.data.get("candidates")
    claims = [
        (at, each["claim"].get("workload"))
        for at, each in enumerate(candidates if isinstance(candidates, list) else [])
        if isinstance(each, dict) and isinstance(each.get("claim"), dict)
    ]
    return [
        document.problem(
            f"the policy {policy_document.file} requires {names} where a gain is claimed, but the capacity of "
            f"{workload} is not searched.",
            f"Search it, or claim on {' or '.join(map(str, searched))}.",
            ("candidates", at, "claim", "workload"),
        )
        for at, workload in claims
        if workload is not None and workload not in searched
    ]


def _seal_problems(document: Document, policy: Policy, policy_document: Document) -> list[InputError]:
    """What only a confirmation may say, and suites without sealed documents where the policy confirms a winner."""
    data = document.data
    suites = [(at, each) for at, each in enumerate(data.get("suites") or []) if isinstance(each, dict)]
    message, remedy = "only a confirmation says so.", "Remove it: `steelyard confirm` makes one of this study."
    found = [document.problem(message, remedy, ("confirms",))] if data.get("confirms") is not None else []
    found += [
        document.problem(message, remedy, ("suites", at, "part"))
        for at, each in suites
        if each.get("part", "open") != "open"
    ]
    if str(data.get("study", "")).endswith(CONFIRMED):
        message = f"{CONFIRMED} at the end is what a confirmation's name has."
        found.append(document.problem(message, "Name the study otherwise.", ("study",)))
    if policy.confirm == "winner":
        message = f"the policy {policy_document.file} confirms a winner on sealed documents, and this suite seals none."
        found += [
            document.problem(message, "Seal some, such as `sealed: 400`.", ("suites", at, "name"))
            for at, each in suites
            if each.get("category") in SCORED and not each.get("sealed")
        ]
    return found
