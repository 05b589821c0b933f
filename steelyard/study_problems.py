"""Pydantic's errors as sentences about a file: where, what is wrong, what to do."""

from __future__ import annotations

import types
import typing
from collections.abc import Collection
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from steelyard.errors import InputError
from steelyard.study_rules import Loc, Misfits, suggestion
from steelyard.yaml_lines import Document

BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
EXPECTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping (`key: value` lines)",
    "model_type": "a mapping (`key: value` lines)",
    "model_attributes_type": "a mapping (`key: value` lines)",
    "tuple_type": "a list (lines with `- `)",
    "list_type": "a list (lines with `- `)",
}


def explain(
    error: ValidationError,
    document: Document,
    model: type[BaseModel],
    *,
    taken: Collection[tuple[int | None, str | None]],
) -> list[InputError]:
    """One InputError a problem. Fields in `taken` (line, path) already have one from YAML itself and are left out."""
    problems: list[InputError] = []
    seen: set[Loc] = set()
    lines = {line for line, _ in taken}
    for each in error.errors(include_url=False):
        loc, union = _trim(tuple(each["loc"]), document.data)
        if each["type"] == "value_error" and isinstance(each.get("ctx", {}).get("error"), Misfits):
            problems += [
                document.problem(misfit.message, misfit.remedy, (*loc, *misfit.at))
                for misfit in each["ctx"]["error"].misfits
            ]
            continue
        # Pydantic counts only the valid entries; those that are not have problems of their own.
        if each["type"] == "too_short" and each["input"]:
            continue
        if loc in seen or (loc and document.line(loc) in lines and loc in document.lines):
            continue
        seen.add(loc)
        message, remedy = _sentences(dict(each), loc, union, model)
        problems.append(document.problem(message, remedy, loc))
    return problems


def _trim(loc: Loc, data: Any) -> tuple[Loc, bool]:
    """Without the branch of a union that pydantic appends (`args.x.str`); and whether there was one."""
    here = data
    for index, part in enumerate(loc):
        known = (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if not known:
            # The last part of a missing key is no branch: its parent is a mapping.
            return (loc, False) if isinstance(here, dict) and index == len(loc) - 1 else (loc[:index], True)
        here = here[part]
    return loc, False


def _sentences(error: dict[str, Any], loc: Loc, union: bool, model: type[BaseModel]) -> tuple[str, str]:
    """What is wrong, and what to do."""
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    if union and not _choices(model, loc):
        return (
            f"is {_kind(value)}, and engines take no such value.",
            "Write a text, a number, true, false or a mapping.",
        )
    if kind == "missing":
        known = _fields(model, loc[:-1])
        info = known.get(str(loc[-1]))
        return (
            "is required but missing.",
            f"Add it: {info.description if info and info.description else 'see the reference'}",
        )
    if kind == "extra_forbidden":
        return "there is no such key.", suggestion(str(loc[-1]), sorted(_fields(model, loc[:-1])), what="Known keys")
    if kind == "literal_error":
        choices = _choices(model, loc)
        hint = suggestion(str(value), choices)
        return f"{_quoted(value)} is not one of {', '.join(choices)}.", hint if hint.startswith(
            "Did"
        ) else "Choose one."
    if kind in BOUNDS:
        key, words = BOUNDS[kind]
        return f"is {_quoted(value)}.", f"Write {words} {context[key]:g}."
    if kind == "too_short":
        return "is an empty list.", f"Give at least {context['min_length']}."
    if kind == "string_too_short":
        return f"{_quoted(value)} is too short.", f"Write at least {context['min_length']} characters."
    if kind == "string_pattern_mismatch":
        return f"{_quoted(value)} is no name.", "Use lower-case letters, digits, - and _, at most 63, no space."
    if kind.startswith("date"):
        return f"{_quoted(value)} is no day.", "Write it as 2026-05-31."
    if kind in EXPECTED:
        return f"must be {EXPECTED[kind]}, and is {_kind(value)}.", _conversion(kind, value)
    return f"{error['msg']}.", "Correct it, see docs/reference/study.md."


def _conversion(kind: str, value: Any) -> str:
    """How to write it so that it is what was expected."""
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        written = str(value).lower() if isinstance(value, bool) else str(value)
        return f'Put it in quotes: "{written}".'
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str):
        return f"Remove the quotes: {value.strip()}." if _number(value) or kind == "bool_type" else "Write a number."
    if kind in ("int_type", "int_from_float") and isinstance(value, float):
        return f"Write {round(value)}." if value == round(value) else "Round it."
    if value is None:
        return "Give a value, or remove the key."
    return "Write it in that form."


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _quoted(value: Any) -> str:
    return f"`{value}`" if isinstance(value, (str, int, float)) else _kind(value)


def _kind(value: Any) -> str:
    """What a YAML author calls a value."""
    if value is None:
        return "empty (null)"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (int, float)):
        return f"the number {value:g}" if isinstance(value, float) else f"the number {value}"
    if isinstance(value, str):
        return f'the text "{value[:40]}"'
    return "a list" if isinstance(value, (list, tuple)) else "a mapping"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models an annotation may hold: through Optional, unions and tuples."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _annotation(model: type[BaseModel], loc: Loc) -> Any:
    """The annotation of the field at a path; None where there is no such field."""
    annotation: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        found = [each.model_fields[part].annotation for each in _models(annotation) if part in each.model_fields]
        if not found:
            return None
        annotation = found[0]
    return annotation


def _fields(model: type[BaseModel], loc: Loc) -> dict[str, Any]:
    """The fields known at a path."""
    return {name: info for each in _models(_annotation(model, loc)) for name, info in each.model_fields.items()}


def _choices(model: type[BaseModel], loc: Loc) -> list[str]:
    """Every literal the field at a path allows."""

    def literals(annotation: Any) -> list[str]:
        if get_origin(annotation) is Literal:
            return [str(each) for each in get_args(annotation)]
        if get_origin(annotation) in (Union, types.UnionType, typing.Annotated):
            return [each for argument in get_args(annotation) for each in literals(argument)]
        return []

    return literals(_annotation(model, loc))
