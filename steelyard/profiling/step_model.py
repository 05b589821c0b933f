"""What a step of the engine costs, by kind of work, as a function of its batch: fitted to the steps of a profile.

Each category of a step's time is a sum of terms with coefficients that are never negative: a fixed part, and parts that
grow with the tokens, requests and query-key pairs of the batch (non-negative least squares, Lawson and Hanson 1974;
each step weighs by the inverse of its duration, so that long prompts do not drown the decodes). Matrix products grow as
the same products were measured to grow on this machine. How well a fit is known is found by fitting again to steps
drawn with replacement.
"""

from __future__ import annotations

import math
import operator
import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steelyard.profiling.operators import CATEGORIES
from steelyard.records_profile import CeilingRow, ProfileRow, ProfileStepRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one step computes: requests and tokens that read prompts (context) and that decode (generation), and the
    query-key pairs of each.
    """

    context_requests: int = 0
    context_tokens: int = 0
    context_pairs: float = 0.0
    generation_requests: int = 0
    generation_tokens: int = 0
    generation_pairs: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens computed."""
        return self.context_tokens + self.generation_tokens

    @property
    def requests(self) -> int:
        """Requests in the batch."""
        return self.context_requests + self.generation_requests

    @property
    def sampled(self) -> int:
        """Positions whose logits are computed: one a request, and each verified draft."""
        return self.context_requests + self.generation_tokens

    @classmethod
    def of(cls, row: ProfileStepRow) -> Batch:
        """The batch of a stored step; without its pairs (older traces) as if it had none."""
        return cls(
            context_requests=row.context_requests, context_tokens=row.context_tokens,
            context_pairs=float(row.context_pairs or 0), generation_requests=row.generation_requests,
            generation_tokens=row.generation_tokens, generation_pairs=float(row.generation_pairs or 0),
        )  # fmt: skip


class Products:
    """Seconds of all the model's matrix products by tokens and data type, between the sizes that were measured."""

    def __init__(self, ceilings: Sequence[CeilingRow]) -> None:
        self._curves: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for row in sorted(ceilings, key=lambda row: row.size):
            if row.kind in ("layers", "head"):
                self._curves.setdefault((row.kind, row.dtype), []).append((row.size, row.value))

    def knows(self, dtype: str) -> bool:
        """Whether products of that type were measured."""
        return ("layers", dtype) in self._curves and ("head", dtype) in self._curves

    def seconds(self, batch: Batch, dtype: str) -> float:
        """Of the layers for the batch's tokens, and of the output projection for what is sampled."""
        return self._at("layers", dtype, batch.tokens) + self._at("head", dtype, batch.sampled)

    def _at(self, kind: str, dtype: str, tokens: int) -> float:
        if tokens <= 0:
            return 0.0
        curve = self._curves[kind, dtype]
        place = bisect_left(curve, (tokens, 0.0))
        if place == 0:
            return curve[0][1]
        if place == len(curve):
            # Beyond what was measured a product is bound by its operations, and they grow with the tokens.
            return curve[-1][1] * tokens / curve[-1][0]
        (size, low), (size_after, high) = curve[place - 1], curve[place]
        along = math.log(tokens / size) / math.log(size_after / size)
        return math.exp(math.log(low) + along * math.log(high / low))


def _terms(category: str, batch: Batch, products: float) -> tuple[float, ...]:
    if category == "gemm":
        return (1.0, products)
    if category == "attention":
        return (1.0, batch.tokens, batch.generation_requests, batch.generation_pairs, batch.context_pairs)
    if category in ("host", "scheduling"):
        return (1.0, batch.requests, batch.context_requests)
    if category == "sampling":
        return (1.0, batch.sampled)
    return (1.0, batch.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What many steps ask for: the sums of their terms by category, and of their products' seconds by data type."""

    terms: Mapping[str, tuple[float, ...]]
    products: Mapping[str, float]


def work_of(batches: Sequence[Batch], products: Products, dtypes: Sequence[str]) -> Work:
    """The work of some steps. Costs are sums of terms, so many steps cost what their work does."""
    sums = {dtype: math.fsum(products.seconds(each, dtype) for each in batches) for dtype in dtypes}
    terms = {
        name: tuple(math.fsum(column) for column in zip(*(_terms(name, each, 0.0) for each in batches), strict=True))
        for name in CATEGORIES
    }
    return Work(terms=terms, products=sums)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepModel:
    """Seconds of a step. `coefficients` by category; `factors` scale a category; products are those measured in
    `products_dtype`.
    """

    coefficients: Mapping[str, tuple[float, ...]]
    products: Products
    factors: Mapping[str, float]
    products_dtype: str

    def seconds(self, batch: Batch) -> float:
        """Of one step and what follows it until the next."""
        products = self.products.seconds(batch, self.products_dtype)
        return self._total({name: _terms(name, batch, products) for name in self.coefficients})

    def total(self, work: Work) -> float:
        """Of all the steps of `work`."""
        products = work.products[self.products_dtype]
        return self._total({**work.terms, "gemm": (work.terms["gemm"][0], products)})

    def _total(self, terms: Mapping[str, tuple[float, ...]]) -> float:
        return sum(
            math.fsum(map(operator.mul, found, terms[name])) * self.factors.get(name, 1.0)
            for name, found in self.coefficients.items()
        )

    def scaled(self, factors: Mapping[str, float], products_dtype: str | None = None) -> StepModel:
        """The same with categories scaled, and products of another data type."""
        both = {name: self.factors.get(name, 1.0) * factors.get(name, 1.0) for name in {*self.factors, *factors}}
        return replace(self, factors=both, products_dtype=products_dtype or self.products_dtype)


def slowed(profiles: Mapping[str, ProfileRow]) -> dict[str, float]:
    """How many times slower each load point was while it was traced; under arrivals, whose passes take as long either
    way, the geometric mean of the others.
    """
    known = {name: 1 + row.overhead for name, row in profiles.items() if row.overhead is not None}
    usual = math.exp(math.fsum(map(math.log, known.values())) / len(known)) if known else 1.0
    return {name: known.get(name, usual) for name in profiles}


def untraced(rows: Sequence[ProfileStepRow], slow: Mapping[str, float]) -> list[ProfileStepRow]:
    """The steps as they would have been without tracing, which made each load point `slow` times slower.

    What tracing takes is Python's time: it is taken from host and scheduling, and from the rest only where these have
    not so much.
    """
    shares: dict[str, tuple[float, float]] = {}
    for point in {row.load_point for row in rows}:
        ours = [row for row in rows if row.load_point == point]
        total = math.fsum(row.until_next_s - row.idle_s for row in ours)
        python = math.fsum(row.host_s + row.scheduling_s for row in ours)
        excess = total * (1 - 1 / slow.get(point, 1.0))
        kept = min(max(1 - excess / python, 0.1), 2.0) if python > 0 else 1.0
        rest = total - python
        left = total - excess - python * kept
        shares[point] = (kept, left / rest if rest > 0 else 1.0)
    return [_scaled(row, *shares[row.load_point]) for row in rows]


def _scaled(row: ProfileStepRow, python: float, rest: float) -> ProfileStepRow:
    spent = {
        f"{name}_s": getattr(row, f"{name}_s") * (python if name in ("host", "scheduling") else rest)
        for name in CATEGORIES
    }
    whole = math.fsum(spent.values())
    return replace(row, until_next_s=whole + row.idle_s, seconds=min(row.seconds, whole), **spent)


def fits(steps: Sequence[ProfileStepRow], products: Products, dtype: str, *, draws: int, seed: int) -> list[StepModel]:
    """Models fitted to the steps themselves, then `draws` times to as many of them drawn with replacement.

    Empty without a step, or without products of the data type.
    """
    import numpy as np

    # A preempted request is read again as if it decoded hundreds of tokens: no step of the kind that is modelled.
    worked = [
        row
        for row in steps
        if (row.context_requests or row.generation_requests) and row.generation_tokens <= row.generation_requests
    ]
    if not worked or not products.knows(dtype):
        return []
    batches = [Batch.of(row) for row in worked]
    ours = [products.seconds(batch, dtype) for batch in batches]
    whole = np.array([max(row.until_next_s - row.idle_s, 1e-9) for row in worked])
    terms = {
        name: np.array([_terms(name, batch, product) for batch, product in zip(batches, ours, strict=True)])
        for name in CATEGORIES
    }
    spent = {name: np.array([getattr(row, f"{name}_s") for row in worked]) for name in CATEGORIES}
    rng = random.Random(seed)
    models = []
    for draw in range(draws + 1):
        chosen = rng.choices(range(len(worked)), k=len(worked)) if draw else range(len(worked))
        times = np.bincount(np.array(chosen), minlength=len(worked))
        weights = np.sqrt(times) / whole
        found = {name: _solve(terms[name], spent[name], weights) for name in CATEGORIES}
        models.append(
            StepModel(coefficients=found, products=products, factors={}, products_dtype=dtype)
        )  # fmt: skip
    return models


def _solve(terms: Any, spent: Any, weights: Any) -> tuple[float, ...]:
    """Coefficients, none negative. Columns are scaled first, for pairs are millions where requests are one."""
    import numpy as np
    from scipy.optimize import nnls

    scale = np.abs(terms * weights[:, None]).max(axis=0)
    scale[scale == 0] = 1.0
    found, _ = nnls(terms * weights[:, None] / scale, spent * weights, maxiter=100 * terms.shape[1])
    return tuple(float(value) for value in found / scale)
