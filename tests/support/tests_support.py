"""What several test folders need."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import psutil

ROOT = Path(__file__).parents[2]
SMALL_POLICY = """\
policy: p
gates:
  - {name: gain, category: speed, metric: output_tokens_per_s, at_least: 1.1}
  - {name: accuracy, category: accuracy, metric: score, margin: 0.02}
  - {name: safety, category: safety, metric: score, margin: 0.02}
"""
SMALL_PRICES = "prices: [{name: box, usd_per_hour: 1.0, source: an invoice, dated: 2026-01-01}]"


def e2e_study() -> ModuleType:
    """STUDY, POLICY and PRICES of the end-to-end tests, on the fake engine."""
    spec = importlib.util.spec_from_file_location("e2e_conftest", ROOT / "tests" / "e2e" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_fake_study(folder: Path, *, policy: dict[str, object] | None = None, **changes: object) -> Path:
    """A study on the fake engine with some keys replaced, or with another policy; its folder."""
    e2e = e2e_study()
    folder.mkdir(parents=True)
    for name, content in (
        ("study", {**e2e.STUDY, **changes}),
        ("policy", policy or e2e.POLICY),
        ("prices", e2e.PRICES),
    ):
        (folder / f"{name}.yaml").write_text(json.dumps(content))
    return folder


def processes_below(home: Path) -> list[str]:
    """Command lines of living processes whose STEELYARD_HOME is `home`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("STEELYARD_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
