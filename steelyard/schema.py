"""JSON Schemas and the reference page of everything a user writes, out of the models that validate it.

The schemas give completion and checking in an editor: a study begins with
`# yaml-language-server: $schema=../schema/study.schema.json`. Rules between fields are for `steelyard check` alone.
"""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from steelyard.finops.price_book import PriceBook
from steelyard.gates.policy import Policy
from steelyard.nightly.settings import Nightly
from steelyard.study import Study
from steelyard.study_base import Frozen

FILES: dict[str, type[Frozen]] = {"study": Study, "policy": Policy, "prices": PriceBook, "nightly": Nightly}
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, str]:
    """Text of each schema file by its name."""
    return {f"{name}.schema.json": _text(name, model) for name, model in FILES.items()}


def write(folder: Path) -> list[Path]:
    """Write the schema files into a folder; the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in schemas().items():
        (folder / name).write_text(text, "utf-8")
        written.append(folder / name)
    return written


def _text(name: str, model: type[Frozen]) -> str:
    schema = {"$schema": DRAFT, "$id": f"{name}.schema.json", **model.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def reference() -> str:
    """The reference page of everything a user writes, as Markdown."""
    parts = [
        "# Reference: study, policy, price book and nightly",
        "",
        "Generated from the models by `steelyard schema --reference docs/reference/study.md`. To change it, change the",
        "descriptions in `steelyard/study.py`, `steelyard/gates/policy.py`, `steelyard/finops/price_book.py` and",
        "`steelyard/nightly/settings.py`.",
        "",
        "Files are YAML with the scalars of YAML 1.2: only `true` and `false` are booleans, `1e-3` is a number. An",
        "unknown or duplicate key is an error. Seconds everywhere. A relative path starts at the folder of the study.",
        "",
    ]
    for name, model in FILES.items():
        parts += _section(f"`{name}.yaml`", model)
        parts += [line for each in nested(model) for line in _section(f"`{each.__name__}`", each, depth=3)]
    return "\n".join(parts).rstrip() + "\n"


def _section(title: str, model: type[BaseModel], depth: int = 2) -> list[str]:
    about = [line.strip() for line in (model.__doc__ or "").strip().splitlines()]
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    header = ["| key | value | default | meaning |", "|---|---|---|---|"]
    return [f"{'#' * depth} {title}", "", *about, "", *header, *rows, ""]


def _row(name: str, field: FieldInfo) -> str:
    if field.is_required():
        default = "**required**"
    elif field.default_factory is not None:
        default = "none"
    elif field.default is None or field.default is PydanticUndefined:
        default = ""
    else:
        default = f"`{json.dumps(field.default)}`"
    cells = (f"`{name}`", _type(field.annotation) + _limits(field), default, field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _limits(field: FieldInfo) -> str:
    words = []
    for each in field.metadata:
        for kind, attribute, sign in ((Ge, "ge", ">="), (Gt, "gt", ">"), (Le, "le", "<="), (Lt, "lt", "<")):
            if isinstance(each, kind):
                words.append(f"{sign} {getattr(each, attribute)}")
        if isinstance(each, MinLen) and field.annotation is not str:
            words.append(f"at least {each.min_length}")
    return f", {', '.join(words)}" if words else ""


def _type(annotation: Any) -> str:
    """A type in a YAML author's words."""
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "mapping", Any: "anything"}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin in (Union, types.UnionType):
        given = [_type(each) for each in arguments if each is not type(None)]
        return " or ".join(dict.fromkeys(given))
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        if arguments[1] is Any:
            return "mapping"
        return f"mapping of name to {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def nested(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Models below a model, each once, in the order met."""
    found: dict[type[BaseModel], None] = {}

    def walk(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in found:
                found[annotation] = None
                for field in annotation.model_fields.values():
                    walk(field.annotation)
            return
        for argument in get_args(annotation):
            walk(argument)

    for field in model.model_fields.values():
        walk(field.annotation)
    return list(found)
