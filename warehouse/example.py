"""The example warehouse: real nights of the embedded study, as `steelyard export` wrote them into docs/example.

The data dictionary answers its questions with it, the notebook and the benches begin with it. Its good requests are
thinned, as retention thins them; everything else is as it was measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from warehouse.restore import restore
from warehouse.store import Store

EXAMPLE = Path(__file__).parent.parent / "docs" / "example"

_NEWEST = """
SELECT run_id FROM latest_runs JOIN (SELECT run_id, count(*) AS arms FROM arms GROUP BY run_id) USING (run_id)
ORDER BY arms DESC, started_at DESC
LIMIT 1
"""


@contextmanager
def example() -> Iterator[Store]:
    """The example in a live file of its own, which goes when it is closed."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "example.duckdb") as store:
        restore(store, str(EXAMPLE))
        yield store


def example_run(store: Store) -> str:
    """The newest run of the example's largest study."""
    return str(store.scalar(_NEWEST))
