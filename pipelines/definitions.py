"""Studies as graphs of assets, with one nightly job over all of them. Importing it reads no study: see `location`."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.asked import asked_assets
from assets.common import asset_safe, key
from assets.compared import compared_assets
from assets.contracts import contract_checks
from assets.incidents import incident_assets
from assets.judged import judged_assets
from assets.measured import measured_assets, served_assets
from assets.released import released_assets
from assets.session import Session, session_resource
from assets.surveyed import surveyed_assets
from pipelines.evidence import keep_evidence
from pipelines.night_job import night_job, night_schedule
from pipelines.sign_off_job import sign_off_job
from steelyard.study_file import LoadedStudy


def build(studies: Sequence[LoadedStudy], session: Session | None = None) -> dg.Definitions:
    """Definitions over the given studies: a job a study, `nightly_validation` over all, and the scheduled `night`."""
    assets = [asset for loaded in studies for asset in study_assets(loaded)]
    checks = [check for loaded in studies for check in contract_checks(loaded)]
    jobs = [
        dg.define_asset_job(
            job_name(loaded),
            selection=dg.AssetSelection.key_prefixes([key(loaded, "study").path[0]]),
            description=f"One run of the study {loaded.study.study}: {loaded.study.description}",
            hooks={keep_evidence},
            executor_def=dg.in_process_executor,
        )
        for loaded in studies
    ]
    every = dg.define_asset_job(
        "nightly_validation",
        selection=dg.AssetSelection.all(),
        description="Every study once, without budget or order: for the UI. The schedule runs `night`.",
        hooks={keep_evidence},
        executor_def=dg.in_process_executor,
    )
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=[*jobs, every, night_job, sign_off_job],
        schedules=[night_schedule],
        resources={"session": session_resource(session)},
        executor=dg.in_process_executor,
    )


def study_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """The whole graph of one study, from what is asked to what is released."""
    return [
        *asked_assets(loaded),
        *served_assets(loaded),
        *surveyed_assets(loaded),
        *measured_assets(loaded),
        *compared_assets(loaded),
        *judged_assets(loaded),
        *incident_assets(loaded),
        *released_assets(loaded),
    ]


def job_name(loaded: LoadedStudy) -> str:
    """Name of a study's own job."""
    return f"validate_{asset_safe(loaded.study.study)}"
