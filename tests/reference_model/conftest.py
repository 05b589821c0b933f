"""Shared pieces: one tokenizer for all tests, since building it takes a second."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from reference_model import tokenizer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def words() -> Tokenizer:
    return tokenizer.build()


@pytest.fixture(scope="session")
def weights() -> Path:
    return ROOT / "reference_model" / "weights"
