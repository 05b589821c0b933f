"""The code location Dagster loads: every study of the folder that can be loaded, and the nightly over all of them."""

from __future__ import annotations

from pipelines.definitions import build
from pipelines.studies import found_studies
from steelyard.home import quiet

quiet()
defs = build(found_studies())
