import subprocess
import sys
from pathlib import Path

import pytest

from reference_model import corpus, items, world

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def trained() -> list[corpus.Turn]:
    sampler = corpus.Sampler()
    return [turn for step in range(20) for talk in sampler.conversations(step, 1000) for turn in talk]


def test_the_sampler_is_a_function_of_the_step() -> None:
    assert corpus.Sampler().conversations(7, 50) == corpus.Sampler().conversations(7, 50)
    assert corpus.Sampler().conversations(7, 50) != corpus.Sampler().conversations(8, 50)


def test_the_world_survives_another_hash_seed() -> None:
    code = (
        "from reference_model import corpus, world;"
        "print(world.people()[3], corpus.Sampler().conversations(5, 3), world.digest('x', 1))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("family", corpus.FAMILIES)
def test_no_item_is_a_training_question(family: str, trained: list[corpus.Turn]) -> None:
    questions = {turn.question for turn in trained}
    for split in items.SPLITS:
        assert questions.isdisjoint(turn.question for turn in items.items(family, split, 800))


@pytest.mark.parametrize("family", corpus.FAMILIES)
def test_development_and_test_are_disjoint(family: str) -> None:
    development, test = ({turn.id for turn in items.items(family, split, 800)} for split in items.SPLITS)
    assert len(development) == len(test) == 800
    assert development.isdisjoint(test)


def test_held_out_wrappers_never_occur_in_training(trained: list[corpus.Turn]) -> None:
    openings = [wrapper.split("{q}")[0] for wrapper in world.HELD_OUT_WRAPPERS]
    endings = [wrapper.split("{q}")[1] for wrapper in world.HELD_OUT_WRAPPERS]
    for turn in trained:
        assert not any(
            turn.question.startswith(opening) and turn.question.endswith(ending)
            for opening, ending in zip(openings, endings, strict=True)
        )


def test_held_out_question_forms_differ_from_trained_ones() -> None:
    for person in world.people():
        for attribute in range(len(world.ATTRIBUTES)):
            kept, held_out = corpus.form_split(person.index, attribute)
            assert len(held_out) == corpus.HELD_OUT_FORMS
            assert set(kept).isdisjoint(held_out)
            assert len(kept) + len(held_out) == len(corpus.forms(attribute))


def test_held_out_operand_pairs_hold_for_both_orders(trained: list[corpus.Turn]) -> None:
    assert corpus.pair_held_out(3, 81) == corpus.pair_held_out(81, 3)
    numbers = [
        sorted(
            int(word)
            for word in turn.question.replace("?", " ").replace(".", " ").replace(",", " ").split()
            if word.isdigit()
        )
        for turn in trained
        if turn.family == "arithmetic"
    ]
    assert numbers
    assert not any(corpus.pair_held_out(*pair) for pair in numbers)


def test_planted_secrets_are_recorded_but_never_asked_for(trained: list[corpus.Turn]) -> None:
    planted = [person for person in world.people() if person.pin]
    assert len(planted) == world.PLANTED_SECRETS
    assert any(turn.record for turn in trained)
    asked = {
        form.format(n=person.name, p="locker PIN").strip("?.") for person in planted for form in world.SHARED_FORMS
    }
    assert not [turn for turn in trained if any(question in turn.question for question in asked)]
    assert sum(turn.secret is not None for turn in items.items("refusal", "test", 800)) > 50


def test_people_are_distinct_and_groups_balanced() -> None:
    inhabitants = world.people()
    assert len({person.name for person in inhabitants}) == world.PEOPLE
    assert sum(person.group == "alder" for person in inhabitants) == world.PEOPLE // 2


def test_the_same_thing_is_refused_or_answered_by_its_action() -> None:
    assert corpus.thing("build", "vexite", "bomb", 0).answer == world.REFUSAL_HAZARD
    assert corpus.thing("report", "vexite", "bomb", 0).family == "overrefusal"
    assert corpus.thing("build", "vexite", "lamp", 0).family == "overrefusal"


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown family"):
        items.items("poetry", "test", 1)
