"""Steps of known costs are fitted back; what is unknown gives no model."""

from __future__ import annotations

import dataclasses
import math

import pytest
from synthetic_steps import HOST, PER_PAIR, SCHEDULING, SHAPE, ceilings, steps

from steelyard.profiling.rooflines import rooflines
from steelyard.profiling.step_model import Batch, Products, fits, untraced, work_of


@pytest.mark.parametrize("slow", [1.0, 1.3])
def test_known_costs_are_found_again(slow: float) -> None:
    plain, traced = (math.fsum(row.until_next_s - row.idle_s for row in steps(pace)) for pace in (1.0, slow))
    known_steps = untraced(steps(slow), {"chat@c2": traced / plain})
    assert math.fsum(row.until_next_s - row.idle_s for row in known_steps) == pytest.approx(plain)
    models = fits(known_steps, Products(ceilings()), "float32", draws=3, seed=1)
    assert len(models) == 4
    for model in models:
        for generation, length in ((2, 100), (8, 300), (32, 50)):
            batch = Batch(
                generation_requests=generation,
                generation_tokens=generation,
                generation_pairs=float(generation * length),
            )
            gemm = Products(ceilings()).seconds(batch, "float32")
            known = gemm + PER_PAIR * batch.generation_pairs + 2e-5 + 1e-6 * generation + 1e-6 + HOST + SCHEDULING
            assert model.seconds(batch) == pytest.approx(known, rel=0.02)


def test_work_costs_what_its_steps_cost() -> None:
    (model,) = fits(steps(), Products(ceilings()), "float32", draws=0, seed=1)
    batches = [Batch.of(row) for row in steps()]
    whole = model.total(work_of(batches, model.products, ["float32"]))
    assert whole == pytest.approx(sum(map(model.seconds, batches)))
    assert model.scaled({"host": 0.5}).total(work_of(batches, model.products, ["float32"])) == pytest.approx(
        whole - 0.5 * HOST * len(batches), rel=1e-3
    )


def test_a_preempted_request_that_is_read_again_is_no_decode() -> None:
    again = dataclasses.replace(steps()[0], generation_requests=1, generation_tokens=300, host_s=9.0)
    (plain,) = fits(steps(), Products(ceilings()), "float32", draws=0, seed=1)
    (other,) = fits([*steps(), again], Products(ceilings()), "float32", draws=0, seed=1)
    assert plain.coefficients == other.coefficients


def test_nothing_to_fit_gives_no_model() -> None:
    assert fits([], Products(ceilings()), "float32", draws=1, seed=1) == []
    assert fits(steps(), Products(ceilings()), "bfloat16", draws=1, seed=1) == []


def test_products_between_and_beyond_what_was_measured() -> None:
    products = Products(ceilings())
    one = Batch(generation_requests=1, generation_tokens=1)
    assert products.seconds(one, "float32") == pytest.approx(1.1e-4 + 1e-5)
    between = Batch(context_requests=1, context_tokens=32)
    assert 1.8e-4 < products.seconds(between, "float32") < 7.5e-4
    beyond = Batch(context_requests=1, context_tokens=1024)
    assert products.seconds(beyond, "float32") == pytest.approx(2 * (1e-4 + 5.12e-3) + 1e-5)


def test_rooflines_stand_beside_their_ceilings() -> None:
    rows = rooflines(steps(), ceilings(), SHAPE, "float32", weight_bytes_each=4.0, kv_bytes_each=4.0)
    assert {row.phase for row in rows} == {"prefill", "decode"}
    for row in rows:
        assert row.mfu == pytest.approx(row.operations / row.seconds / 1e11)
        assert row.weight_bytes is not None
        assert row.kv_bytes is not None
        assert row.mbu == pytest.approx((row.weight_bytes + row.kv_bytes) / row.seconds / 1e10)
    unknown = rooflines(steps(), [], SHAPE, "float32", weight_bytes_each=None, kv_bytes_each=4.0)
    assert all(row.mfu is None and row.mbu is None and row.weight_bytes is None for row in unknown)
