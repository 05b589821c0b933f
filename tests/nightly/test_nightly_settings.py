"""nightly.yaml: what it may say, and that whatever else it says is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from steelyard.errors import InputError
from steelyard.nightly.settings import load_nightly, nightly_settings


def written(folder: Path, text: str) -> Path:
    path = folder / "nightly.yaml"
    path.write_text(text)
    return path


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    settings = nightly_settings(tmp_path / "nightly.yaml")
    assert (settings.budget_s, settings.valid_for_s, settings.retention) == (8 * 3600, 18 * 3600, None)
    assert settings.notify.digest
    assert (settings.drift.least_ratio, settings.drift.least_difference) == (0.05, 0.01)


def test_everything_that_may_be_said(tmp_path: Path) -> None:
    settings = load_nightly(
        written(
            tmp_path,
            """
studies: [chat, search]
skip: [campaign]
budget: 1h30m
valid_for: 7d
dagster_days: null
retention: {after_days: 90, keep: 0.1}
drift: {least_ratio: 0.1}
notify:
  webhook: {url_env: HOOK, secret_env: SECRET}
  mail: {host: smtp.example.org, sender: a@example.org, to: [b@example.org]}
""",
        )
    )
    assert settings.budget_s == 5400
    assert settings.valid_for_s == 7 * 86400
    assert settings.studies == ("chat", "search")
    assert settings.notify.mail is not None
    assert (settings.notify.mail.port, settings.notify.mail.security) == (587, "starttls")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("budget: three hours", 1, "is no time"),
        ("budget: 0s", 1, "is no time"),
        ("valid_for: 400d", 1, "a year at most"),
        ("budgte: 3h", 1, "budget"),
        ("notify:\n  webhook: {}", 2, "exactly one address"),
        ("notify:\n  webhook: {url: 'https://a', url_env: B}", 2, "exactly one address"),
        ("notify:\n  webhook: {url: 'ftp://a'}", 2, "ftp://a"),
        ("notify:\n  mail: {host: a, sender: a@b, to: []}", 2, "empty list"),
        ("notify:\n  mail: {host: a, sender: nobody, to: [a@b]}", 2, "nobody"),
        ("notify:\n  mail: {host: a, sender: a@b, to: [a@b], user_env: U}", 2, "password"),
        ("drift: {least_ratio: 0}", 1, "least_ratio"),
        ("dagster_days: 0", 1, "dagster_days"),
    ],
)
def test_anything_else_is_named_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_nightly(written(tmp_path, text))
    [problem] = caught.value.problems
    assert problem.line == line
    assert said in str(problem)
