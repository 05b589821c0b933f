"""A run whose policy names roles: its page says that nobody is promoted yet, and where to go."""

import dataclasses
import json
from typing import Any

from page_reader import Page

from steelyard.reports.page import render


def test_a_run_that_waits_for_people_promotes_nobody(facts: Any) -> None:
    policy = {**json.loads(facts.study.policy_json), "sign_offs": ["responsible-ai", "sre"]}
    study = dataclasses.replace(facts.study, policy_json=json.dumps(policy), status="complete")
    won = [dataclasses.replace(row, verdict="promote") if row.arm == "bf16" else row for row in facts.verdicts]
    page = Page(render(dataclasses.replace(facts, study=study, verdicts=won, promotions=[])))
    assert "1 of 8 candidates passed every gate and waits for responsible-ai and sre." in page.seen
    assert f"before responsible-ai and sre approve: steelyard review {study.run_id}." in page.seen
    assert "deserve production" not in page.seen
    assert "Not promoted yet: it waits for the sign-off of responsible-ai and sre." in page.seen
