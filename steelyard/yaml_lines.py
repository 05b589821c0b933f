"""YAML as people mean it, with the line of every field.

PyYAML reads YAML 1.1, where `on`, `yes` and `no` are booleans, `1e-3` is a text and `1:30` is ninety. Here scalars
follow the YAML 1.2 core schema, and whatever the two versions read differently is a problem to be reported, because a
study must not mean one thing to its author and another to the machine. Duplicate keys, which PyYAML drops in
silence, are problems too.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from steelyard.errors import InputError
from steelyard.study_rules import Loc

LARGEST_FILE = 1_000_000
MOST_NODES = 50_000
DIFFERENT_BOOLEAN = re.compile(r"^(?:y|n|yes|no|on|off)$", re.IGNORECASE)
DIFFERENT_NUMBER = re.compile(r"^[-+]?(?:0[0-7]+|0b[01_]+|\d[\d_]*_[\d_]*(?:\.\d*)?|\d+(?::[0-5]?\d)+)$")
TAG = "tag:yaml.org,2002:"


class CoreLoader(yaml.SafeLoader):
    """Scalars by the YAML 1.2 core schema; everything else is a text. Only `compose` is used of it."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    ("merge", r"^<<$", ["<"]),
):
    CoreLoader.add_implicit_resolver(f"{TAG}{_tag}", re.compile(_pattern), _first)


@dataclass(slots=True)
class Document:
    """A YAML file as plain data, with the line of each field by its path, and the problems of YAML itself."""

    file: str
    data: Any
    lines: dict[Loc, int]
    problems: list[InputError] = field(default_factory=list)

    def line(self, loc: Loc) -> int:
        """The line of a field, or of the nearest part of the file around it."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def path(self, loc: Loc) -> str:
        """`candidates[bf16].args.dtype`: list items by their name where they have one."""
        text, here = "", self.data
        for part in loc:
            inside = _inside(here, part)
            if isinstance(part, int):
                name = inside.get("name") if isinstance(inside, dict) else None
                text += f"[{name if isinstance(name, str) else part}]"
            else:
                text += f".{part}" if text else part
            here = inside
        return text

    def problem(self, message: str, remedy: str, loc: Loc) -> InputError:
        """An error at a field of this file."""
        return InputError(message, remedy=remedy, file=self.file, line=self.line(loc), field=self.path(loc) or None)


def _inside(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def shown(path: Path) -> str:
    """A path as a person would type it here: relative where it is below the working folder."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def read(path: Path, what: str) -> Document:
    """Read a YAML file whose root is a mapping. InputError, with one problem, if there is nothing to go on with."""
    file = shown(path)

    def refuse(message: str, remedy: str, line: int | None = None) -> InputError:
        return InputError(message, remedy=remedy, file=file, line=line)

    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise refuse(f"there is no such {what}.", "Check the path, or copy one from studies/laptop.") from error
    except OSError as error:
        raise refuse(f"the {what} cannot be read ({error.strerror}).", "Check the path and its permissions.") from error
    if len(raw) > LARGEST_FILE:
        raise refuse(f"the {what} has {len(raw)} bytes.", f"At most {LARGEST_FILE} are read: is it the right file?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise refuse("the file is not UTF-8.", "Save it as UTF-8.", line) from error
    try:
        node = yaml.compose(text, CoreLoader)
    except yaml.MarkedYAMLError as error:
        raise refuse(*_syntax(error, text)) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise refuse("the file holds a character YAML does not allow.", "Remove it.", line) from error
    except RecursionError as error:
        raise refuse("the file is nested too deeply.", "Is it the right file?") from error
    if node is None:
        raise refuse(f"the {what} is empty.", "Copy one from studies/laptop and change it.", 1)
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "single value"
        raise refuse(f"the file is a {kind}, not a mapping.", "Its first level must be `key: value` lines.", line)
    document = Document(file, None, {(): line})
    builder = _Builder(document)
    document.data = builder.value(node, ())
    document.problems = [
        InputError(message, remedy=remedy, file=file, line=at, field=document.path(loc) or None)
        for at, loc, message, remedy in builder.found
    ]
    return document


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[str, str, int | None]:
    """A YAML syntax error as message, remedy and line."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else None
    source = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
    if "\t" in source[: len(source) - len(source.lstrip())] or "'\\t'" in str(error.problem):
        return "YAML does not allow tabs as indentation.", "Indent with spaces.", line
    if "expected a single document" in str(error.context):
        return "the file holds more than one document.", "Remove the line `---` and what follows.", line
    problem = error.problem or error.context or "unreadable"
    if "mapping values are not allowed" in problem:
        return "YAML syntax: a second `:` in one line.", "Put the value in quotes, or check the indentation.", line
    if "undefined alias" in problem:
        return f"YAML syntax: {problem}.", "Define it before with &NAME.", line
    return f"YAML syntax: {problem}.", "Check indentation, quotes, brackets and the line above.", line


class _Builder:
    """Plain data out of nodes, each with its line."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.open: set[int] = set()
        self.seen = 0
        self.found: list[tuple[int, Loc, str, str]] = []

    def complain(self, node: yaml.Node, loc: Loc, message: str, remedy: str) -> None:
        self.found.append((node.start_mark.line + 1, loc, message, remedy))

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        self.seen += 1
        if id(node) in self.open or self.seen > MOST_NODES:
            self.complain(node, loc, "an alias contains itself or grows without end.", "Write the values out.")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, loc)
        self.open.add(id(node))
        try:
            if not node.tag.startswith(TAG):
                self.complain(node, loc, f"the tag {node.tag} means nothing here.", "Remove it.")
            if isinstance(node, yaml.SequenceNode):
                return self.sequence(node, loc)
            return self.mapping(node, loc) if isinstance(node, yaml.MappingNode) else None
        finally:
            self.open.discard(id(node))

    def sequence(self, node: yaml.SequenceNode, loc: Loc) -> list[Any]:
        items = []
        for index, item in enumerate(node.value):
            self.document.lines[(*loc, index)] = item.start_mark.line + 1
            items.append(self.value(item, (*loc, index)))
        return items

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == f"{TAG}merge":
                inherited = self.value(value_node, (*loc, "<<"))
                for each in inherited if isinstance(inherited, list) else [inherited]:
                    merged = {**(each if isinstance(each, dict) else {}), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.complain(key_node, loc, "a key must be a text.", "Write `key: value`.")
                continue
            key = key_node.value
            if key in first:
                self.complain(
                    key_node, (*loc, key), f"the key stands twice, first in line {first[key]}.", "Remove one."
                )
                continue
            first[key] = line
            self.document.lines[(*loc, key)] = line
            result[key] = self.value(value_node, (*loc, key))
        return {**merged, **result}

    def scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        text, tag = node.value, node.tag.removeprefix(TAG)
        plain = node.style is None
        if plain and DIFFERENT_BOOLEAN.match(text):
            meant = "true" if text.lower() in ("y", "yes", "on") else "false"
            self.complain(
                node, loc, f"`{text}` is a boolean to some programs and a text to others.",
                f'Write {meant}, or "{text}" for the text.',
            )  # fmt: skip
            return meant == "true"
        if plain and DIFFERENT_NUMBER.match(text):
            self.complain(
                node, loc, f"`{text}` is read differently by different programs.",
                f'Write a plain number, or "{text}" for the text.',
            )  # fmt: skip
            return text
        try:
            if tag == "null":
                return None
            if tag == "bool":
                return text.lower() == "true"
            if tag == "int":
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            if tag == "float":
                number = float(re.sub(r"\.(inf|nan)$", r"\1", text, flags=re.IGNORECASE))
                if math.isfinite(number):
                    return number
                self.complain(node, loc, f"`{text}` is no number that can be compared.", "Write a finite number.")
                return 0.0
        except ValueError:
            self.complain(node, loc, f"`{text[:40]}` is not a {tag}.", "Correct it, or remove the tag.")
            return None
        if tag not in ("str", "timestamp", "merge"):
            self.complain(node, loc, f"the tag {node.tag} means nothing here.", "Remove it.")
        return text
