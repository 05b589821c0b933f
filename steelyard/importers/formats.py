"""Which tool wrote a file, told by its content, and the way from a path to rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn

from steelyard.errors import InputError
from steelyard.importers import aiperf, guidellm, lm_eval, vllm_bench
from steelyard.importers.common import Asked, Imported
from steelyard.importers.json_source import Source, read
from steelyard.yaml_lines import shown

Format = Literal["vllm-bench", "guidellm", "aiperf", "aiperf-summary", "lm-eval", "lm-eval-samples"]

ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
LEVELS = 2
"""Folders below the given one that are looked into: lm-eval writes into one of the model's name."""
KNOWN = (
    "Known are `vllm bench serve --save-result --save-detailed`, GuideLLM's benchmarks.json, AIPerf's "
    "profile_export.jsonl, and lm-eval's results and samples files."
)
# More particular formats first.
_MARKS: tuple[tuple[Format, Callable[[object], bool]], ...] = (
    ("lm-eval-samples", lm_eval.recognises_sample),
    ("lm-eval", lm_eval.recognises),
    ("guidellm", guidellm.recognises),
    ("aiperf", aiperf.recognises),
    ("aiperf-summary", aiperf.recognises_summary),
    ("vllm-bench", vllm_bench.recognises),
)


def detect(path: Path) -> Format:
    """The format of a file, by its content, never by its name. InputError if it is none or cannot be read."""
    return _format(read(path))


def read_foreign(path: Path, asked: Asked | None = None) -> Imported:
    """A file of another tool, or a folder with one run of it, as rows.

    Raises InputError with file, line and field for what is malformed, lacks individual requests or is unknown.
    """
    try:
        return _rows(path, asked or Asked())
    except RecursionError:
        raise InputError(
            "the JSON is nested too deeply.", remedy="Is it the right file?", file=shown(path), line=1
        ) from None


def _rows(path: Path, asked: Asked) -> Imported:
    source = _only_run(path) if path.is_dir() else read(path)
    if isinstance(source, list):
        return lm_eval.rows(None, source, asked)
    match _format(source):
        case "vllm-bench":
            return vllm_bench.rows(source, asked)
        case "guidellm":
            return guidellm.rows(source, asked)
        case "aiperf":
            return aiperf.rows(source, asked)
        case "lm-eval":
            return lm_eval.rows(source, _samples_beside(source), asked)
        case "lm-eval-samples":
            return lm_eval.rows(None, [source], asked)
        case "aiperf-summary":
            raise InputError(
                "the file is AIPerf's summary, which holds no individual requests.",
                remedy=aiperf.AGAIN, file=source.file, line=1,
            )  # fmt: skip


def _format(source: Source) -> Format:
    found = _known(source)
    if found is None:
        raise InputError("the file is of no tool that is known here.", remedy=KNOWN, file=source.file, line=1)
    return found


def _known(source: Source) -> Format | None:
    return next((name for name, recognises in _MARKS if recognises(source.documents[0].data)), None)


def _samples_beside(results: Source) -> list[Source]:
    """Samples files in the folder of a results file. A broken one is told: it may be the one that is needed."""
    lines = [path for path in _files(results.path.parent, 0) if path.name.endswith((".jsonl", ".jsonl.gz"))]
    return [source for source in map(read, lines) if _known(source) == "lm-eval-samples"]


def _files(folder: Path, levels: int) -> list[Path]:
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and levels > 0 and not path.name.startswith("."):
            found += _files(path, levels - 1)
        elif path.is_file() and path.name.endswith(ENDINGS):
            found.append(path)
    return found


def _only_run(folder: Path) -> Source | list[Source]:
    """The one run a folder holds: a file of its own, or samples files without results."""
    runs: list[Source] = []
    samples: list[Source] = []
    broken: list[InputError] = []
    for path in _files(folder, LEVELS):
        try:
            source = read(path)
        except InputError as error:
            broken.append(error)
            continue
        match _known(source):
            case "lm-eval-samples":
                samples.append(source)
            case "vllm-bench" | "guidellm" | "aiperf" | "lm-eval":
                runs.append(source)
    if len(runs) > 1:
        names = ", ".join(run.path.name for run in runs[:5])
        _refuse(folder, f"the folder holds {len(runs)} runs: {names}.", "Give one of these files.")
    if broken:
        # It may be the half of a run, and what is left of it would pass for the whole.
        raise broken[0]
    if samples and runs and _known(runs[0]) != "lm-eval":
        _refuse(folder, f"the folder holds {runs[0].path.name} and samples of lm-eval.", "Give one of these files.")
    if not runs and not samples:
        _refuse(folder, "the folder holds no file of a tool that is known here.", KNOWN)
    return runs[0] if runs else samples


def _refuse(folder: Path, message: str, remedy: str) -> NoReturn:
    raise InputError(message, remedy=remedy, file=shown(folder))
