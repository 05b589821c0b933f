"""The table over seeds: what it says when seeds differ, and that the rest of the card is left alone."""

from __future__ import annotations

from pathlib import Path

from reference_model import card, seeds

FOUND = {2: (False, {"steelyard_facts": 0.5}), 1: (True, {"steelyard_facts": 0.7})}


def test_seeds_stand_in_order_with_their_spread_and_a_missed_band_is_named() -> None:
    lines = seeds.table(FOUND).splitlines()
    assert lines[0] == "| suite | seed 1 | seed 2 | mean | s.d. over seeds |"
    assert lines[2] == "| `steelyard_facts` | 0.700 | 0.500 | 0.600 | 0.141 |"
    assert lines[3].endswith("| yes | no | | |")


def test_one_seed_has_no_spread() -> None:
    assert seeds.table({1: FOUND[1]}).splitlines()[2] == "| `steelyard_facts` | 0.700 | 0.700 |  |"


def test_writing_replaces_only_what_stands_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "CARD.md"
    path.write_text(f"before\n{seeds.BEGIN}\nold\n{seeds.END}\nafter\n")
    for _ in range(2):
        card.write("new", seeds.BEGIN, seeds.END, path)
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{seeds.END}\nafter\n")
    assert text.count("new") == 1
    assert "old" not in text


def test_the_shipped_card_has_both_places() -> None:
    text = card.CARD.read_text("utf-8")
    for mark in (card.BEGIN, card.END, seeds.BEGIN, seeds.END):
        assert text.count(mark) == 1
