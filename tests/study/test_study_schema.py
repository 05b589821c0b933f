"""Schemas and reference are those of the models, and the studies we ship follow them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from steelyard.schema import FILES, nested, reference, schemas
from steelyard.study_file import load_study
from steelyard.yaml_lines import read

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.parent for path in (ROOT / "studies").glob("*/study.yaml"))


def test_committed_schemas_are_current() -> None:
    for name, text in schemas().items():
        committed = (ROOT / "studies" / "schema" / name).read_text("utf-8")
        assert committed == text, "run: steelyard schema --write studies/schema"


def test_committed_reference_is_current() -> None:
    committed = (ROOT / "docs" / "reference" / "study.md").read_text("utf-8")
    assert committed == reference(), "run: steelyard schema --reference docs/reference/study.md"


@pytest.mark.parametrize("model", [each for root in FILES.values() for each in (root, *nested(root))])
def test_every_field_says_what_it_means(model: type[BaseModel]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_shipped_studies_are_valid_and_name_their_schema(folder: Path) -> None:
    load_study(folder)
    for name in FILES:
        file = folder / f"{name}.yaml"
        if not file.is_file():
            continue
        first = file.read_text("utf-8").splitlines()[0]
        schema = folder / first.removeprefix("# yaml-language-server: $schema=")
        validator = Draft202012Validator(json.loads(schema.read_text("utf-8")))
        assert [error.message for error in validator.iter_errors(read(file, name).data)] == []


def test_the_laptop_study_says_why() -> None:
    study = load_study(ROOT / "studies" / "laptop").study
    assert len(SHIPPED) >= 2
    assert all(arm.note for arm in study.arms)
    assert {control.kind for control in study.controls} == {"identity", "known_bad"}
