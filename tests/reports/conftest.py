"""The synthetic run, made once for each set of arguments: making it costs more than most tests."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@functools.lru_cache(maxsize=8)
def _made(arguments):
    from synthetic_facts import make_facts

    return make_facts(**dict(arguments))


@pytest.fixture
def facts_of():
    """`facts_of(seed=, arms=, loads=, blocks=, requests=, documents=, failed=)`: the Facts of a synthetic run."""
    return lambda **arguments: _made(tuple(sorted(arguments.items())))


@pytest.fixture
def facts(facts_of):
    """A whole run, small enough to be quick."""
    return facts_of(requests=10, documents=40, blocks=3, loads=3)
