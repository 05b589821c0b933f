"""What was asked, read back from the row of a run: study, policy and price, and their digests."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from steelyard.digest import digest, text_digest
from steelyard.errors import InputError
from steelyard.finops.price_book import Price, PriceBook
from steelyard.gates.policy import Policy
from steelyard.records import PriceRow, StudyRow
from steelyard.study import Study

MAX_ORDERS = 7
"""Prices without a place that are tried in every order: 5040 digests take a second or two."""

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a run was asked, as it was frozen."""

    study: Study
    policy: Policy
    prices: PriceBook
    policy_digest: str


def asked_of(run: StudyRow, prices: Sequence[PriceRow]) -> Asked:
    """Study, policy and price book of a run. Raises InputError if this Steelyard cannot read them."""
    study, policy = asked(run)
    book = PriceBook(prices=tuple(_price(row) for row in sorted(prices, key=lambda row: (row.place or 0, row.price))))
    return Asked(study=study, policy=policy, prices=book, policy_digest=text_digest(run.policy_json))


def asked(run: StudyRow) -> tuple[Study, Policy]:
    """Study and policy of a run as they were frozen. Raises InputError if this Steelyard cannot read them."""
    return _read(run, "study_json", run.study_json, Study), _read(run, "policy_json", run.policy_json, Policy)


def _read(run: StudyRow, column: str, text: str, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(
            f"Run {run.run_id}: the stored {column} cannot be read ({place}: {first['msg']}).",
            remedy=f"Use the Steelyard that wrote it: {run.steelyard_version}, commit {run.git_commit or 'unknown'}.",
            field=column,
        ) from error


def price_of(prices: Sequence[PriceRow], name: str) -> Price | None:
    """The stored price of that name; None if it is not stored. Raises InputError if it is no price."""
    row = next((row for row in prices if row.price == name), None)
    return None if row is None else _price(row)


def study_digests(run: StudyRow, prices: Sequence[PriceRow]) -> tuple[str | None, str]:
    """Digests of study and policy from the stored text; that of the study is None if it cannot be known.

    From the text and not from the models, which may have got fields since. The study's digest covers the price book in
    the order in which it was written. Rows of an older Steelyard do not know their place in it, so every order is
    tried: the digest is the stored one if any order gives it, otherwise that of the rows as given.
    """
    parts: dict[str, Any] = {"study": json.loads(run.study_json), "policy": json.loads(run.policy_json)}
    places = {row.price: row.place for row in prices}
    ordered = None not in places.values()
    rows = sorted(prices, key=lambda row: (places[row.price] or 0, row.price))
    book = [_price(row).model_dump(mode="json") for row in rows]

    def of(order: Sequence[dict[str, Any]]) -> str:
        return digest({**parts, "prices": {"prices": list(order)}})

    found: str | None = of(book)
    if not ordered and found != run.study_digest:
        if len(book) > MAX_ORDERS:
            found = None
        elif any(of(order) == run.study_digest for order in itertools.permutations(book)):
            found = run.study_digest
    return found, text_digest(run.policy_json)


def _price(row: PriceRow) -> Price:
    try:
        return Price(
            name=row.price, usd_per_hour=row.usd_per_hour, source=row.source, dated=row.dated, note=row.note
        )  # fmt: skip
    except ValidationError as error:
        raise InputError(
            f"Run {row.run_id}: the stored price {row.price} is no price ({error.errors()[0]['msg']}).",
            remedy="The row was edited: restore the warehouse from a snapshot published before.",
            field="prices",
        ) from error
