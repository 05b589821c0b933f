"""What is asked: the study as validated, and its deployments made ready."""

from __future__ import annotations

import dagster as dg

from assets.common import common, key
from assets.metadata import definition_metadata
from assets.session import Session
from assets.tracing import rows_link
from evals.divergence_prompts import screen_problems
from evals.tasks import suite_problems
from steelyard.engines.ahead import common_env
from steelyard.engines.arguments import check_many
from steelyard.errors import InputError
from steelyard.records import StudyRow
from steelyard.study_file import LoadedStudy


def asked_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """`study` and `deployments`."""
    study = loaded.study

    @dg.asset(
        key=key(loaded, "study"),
        description=f"{study.description} Begins a run, or resumes the one that was killed.",
        metadata=definition_metadata(StudyRow),
        **common(loaded, "asked", "yaml", "duckdb"),
    )
    def study_asset(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.begin(loaded)
        return dg.MaterializeResult(
            metadata={
                "run_id": run.run_id,
                "rows": rows_link(run.run_id, "studies"),
                "study_digest": run.study_digest,
                "policy_digest": run.policy_digest,
                "arms": dg.MetadataValue.md(arms_markdown(loaded)),
                "gates": dg.MetadataValue.md(gates_markdown(loaded)),
            }
        )

    @dg.asset(
        key=key(loaded, "deployments"),
        deps=[study_asset],
        description="Every arm made ready: derived weights, arguments the engine accepts, suites that can judge.",
        **common(loaded, "asked", "python"),
    )
    def deployments(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        ready = session.deployments(loaded)
        run_id = session.run(loaded).run_id
        if blind := [*suite_problems(study, loaded.root, run_id=run_id), *screen_problems(study, loaded.root)]:
            raise InputError(" ".join(blind), remedy="Correct the suites of the study.")
        # After the suites: meanwhile the engine's own import comes to its end.
        refused = check_many(
            [(arm.arm, arm.engine, arm.args) for arm in ready], study.hardware.device, env=common_env(ready)
        )
        if refused:
            raise InputError(
                "The engine refuses arguments. " + " ".join(f"{arm}: {why}" for arm, why in sorted(refused.items())),
                remedy="Run `steelyard check` on the study for file and line.",
            )
        lines = [f"| {arm.arm} | {arm.engine} | {(arm.weights_digest or 'n/a')[:12]} |" for arm in ready]
        table = "\n".join(["| arm | engine | weights sha256 |", "|---|---|---|", *lines])
        return dg.MaterializeResult(metadata={"arms": len(ready), "table": dg.MetadataValue.md(table)})

    return [study_asset, deployments]


def arms_markdown(loaded: LoadedStudy) -> str:
    """The arms as asked for."""
    rows = [
        f"| {arm.name} | {arm.role} | {arm.lever or ''} | "
        f"{arm.claim.load_point if arm.claim else ''} | {arm.note or ''} |"
        for arm in loaded.study.arms
    ]
    return "\n".join(["| arm | role | lever | claims | why |", "|---|---|---|---|---|", *rows])


def gates_markdown(loaded: LoadedStudy) -> str:
    """The policy's gates."""
    rows = []
    for gate in loaded.policy.gates:
        kind, bound = next(
            (name, getattr(gate, name)) for name in ("at_least", "at_most", "margin") if getattr(gate, name) is not None
        )
        rows.append(
            f"| {gate.name} | {gate.category} | {gate.metric} on {gate.on} | {kind.replace('_', ' ')} {bound:g} | "
            f"{'yes' if gate.required else 'advisory'} |"
        )
    return "\n".join(["| gate | category | metric | bound | required |", "|---|---|---|---|---|", *rows])
