"""Data contracts as blocking asset checks: Great Expectations judges each measured table of the run."""

from __future__ import annotations

import dagster as dg

from assets.common import key
from assets.evidence import Evidence
from assets.measuring import trials_left
from assets.session import PROFILED, Session
from steelyard.records import ArmRow, StudyRow
from steelyard.records_search import StackRow
from steelyard.records_trials import EngineMetricRow, RequestRow, TrialRow
from steelyard.reports import Contract
from steelyard.study_file import LoadedStudy
from warehouse.contracts import CONTRACTS, ContractResult, validate

NOTHING = ContractResult(success=True, table="", checked=0, failures=[])
TIMED = (TrialRow.TABLE, RequestRow.TABLE, EngineMetricRow.TABLE)


def must_have_rows(session: Session, loaded: LoadedStudy, run: StudyRow, table: str) -> bool:
    """Whether an empty table is a broken contract. Engines somebody else runs need not export metrics, and without an
    arm beside the baseline nobody is screened. Where every arm was rejected nobody is timed, nor searched for capacity.
    A profile is no condition of anything.
    """
    if table == "probes" or table in PROFILED:
        return False
    arms = session.store.read(ArmRow, run_id=run.run_id)
    if table == "divergences":
        return any(row.role != "baseline" and row.status == "served" for row in arms)
    timed = bool(session.store.done_trials(run.run_id))
    if table in TIMED and not timed and not trials_left(Evidence(session, loaded, run), session, loaded, run):
        return False
    return table != "engine_metrics" or any(row.engine != "attach" for row in arms)


def contract_checks(loaded: LoadedStudy) -> list[dg.AssetChecksDefinition]:
    """One blocking check a table; none for divergences, probes and profiles where the study asks for none."""
    asked = {
        "divergences": loaded.study.divergence is not None,
        "probes": bool(loaded.study.capacity),
        **dict.fromkeys(PROFILED, loaded.study.profile is not None),
        # Searches have no assets; `steelyard tune` holds its own rows against this one.
        StackRow.TABLE: False,
    }
    unasked = {table for table, wanted in asked.items() if not wanted}
    return [contract_check(loaded, table) for table in CONTRACTS if table not in unasked]


def contract_check(loaded: LoadedStudy, table: str) -> dg.AssetChecksDefinition:
    """The contract of one table, over the rows of the study's latest run. What decides no verdict blocks none."""

    @dg.asset_check(
        asset=key(loaded, table),
        name="data_contract",
        blocking=table not in PROFILED,
        description=f"Great Expectations: types, ranges, keys and cross-column rules of {table}.",
    )
    def check(session: dg.ResourceParam[Session]) -> dg.AssetCheckResult:
        run = session.run(loaded)
        frame = session.store.query(f"SELECT * FROM {table} WHERE run_id = ?", [run.run_id])
        result = validate(table, frame) if len(frame) or must_have_rows(session, loaded, run, table) else NOTHING
        detail = "; ".join(result.failures) or f"{result.checked} expectations hold over {len(frame):,} rows"
        session.contracts[run.run_id][table] = Contract(name=table, passed=result.success, detail=detail)
        return dg.AssetCheckResult(
            passed=result.success,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={
                "checked": result.checked,
                "failures": dg.MetadataValue.md("\n".join(f"- {each}" for each in result.failures) or "none"),
            },
        )

    return check
