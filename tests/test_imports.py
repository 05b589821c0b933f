"""Imports run one way, and heavy packages stay out of module level: the two rules that keep the house light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "steelyard": {"steelyard"},
    "reference_model": {"reference_model", "evals", "steelyard"},
    "benchmarks": {"warehouse", "benchmarks", "reference_model", "evals", "steelyard"},
    "evals": {"evals", "steelyard"},
    "warehouse": {"warehouse", "steelyard", "evals"},
    "assets": {"assets", "warehouse", "steelyard", "evals"},
    "pipelines": {"pipelines", "assets", "warehouse", "steelyard", "evals"},
}
COMPOSITION_ROOT = {
    Path(f"steelyard/{name}.py") for name in ("cli", "cli_nightly", "cli_published", "cli_review", "cli_warehouse")
}
"""The command: it alone may reach up, inside the functions that carry a verb out (docs/decisions/0001)."""

HEAVY = {"vllm", "lm_eval", "torch", "transformers", "great_expectations"}
SERVER_PROCESSES = {Path("steelyard/engines/transformers_server.py"), Path("steelyard/engines/vllm_shim.py")}


def modules() -> list[Path]:
    return sorted(path.relative_to(ROOT) for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_there_is_something_to_walk() -> None:
    assert len(modules()) > 30


@pytest.mark.parametrize("path", modules(), ids=str)
def test_arrows_point_one_way(path: Path) -> None:
    ours = imported(ast.parse((ROOT / path).read_text())) & set(MAY_IMPORT)
    if path not in COMPOSITION_ROOT:
        assert ours <= MAY_IMPORT[path.parts[0]], f"{path} imports {ours - MAY_IMPORT[path.parts[0]]}"


@pytest.mark.parametrize("path", modules(), ids=str)
def test_library_knows_neither_dagster_nor_duckdb(path: Path) -> None:
    names = imported(ast.parse((ROOT / path).read_text()))
    if path.parts[0] in {"steelyard", "evals", "reference_model"}:
        assert not names & {"dagster", "duckdb"}
    if path.parts[0] == "warehouse":
        assert "dagster" not in names


@pytest.mark.parametrize("path", modules(), ids=str)
def test_heavy_packages_are_imported_in_functions(path: Path) -> None:
    if path.parts[0] == "reference_model" or path in SERVER_PROCESSES:
        return
    top = ast.Module([node for node in ast.parse((ROOT / path).read_text()).body if not guarded(node)], [])
    outside = [node for node in walk_module_level(top) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = set().union(*(imported(node) for node in outside)) if outside else set()
    assert not names & HEAVY, f"{path} imports {names & HEAVY} at module level"


def guarded(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def walk_module_level(tree: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += [node, *walk_module_level(node)]
    return found


def test_help_and_code_location_import_nothing_heavy() -> None:
    code = f"import sys; import steelyard.cli; import pipelines.location; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
