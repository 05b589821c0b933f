"""What the bench of engine starts says is what it measured."""

from __future__ import annotations

from benchmarks.engine_start import main, page, summary

ROUNDS = [(20.0, 6.0, 1.0), (24.0, 8.0, 0.5), (22.0, 5.0, 2.0)]


def test_ratios_are_those_of_the_rounds() -> None:
    said = summary(ROUNDS, same_deployment=True)
    assert (said["plain_s"], said["ours_first_s"], said["ours_s"]) == (22.0, 6.0, 1.0)
    assert (said["ratio"], said["ratio_first"]) == (20.0, 3.33)
    text = page(ROUNDS, said, "here")
    assert "| 2 | 24.0 s | 8.0 s | 0.5 s |" in text
    assert "**no**" in page(ROUNDS, summary(ROUNDS, same_deployment=False), "here")


def test_an_arm_without_vllm_is_refused() -> None:
    assert main(["--arm", "nobody"]) == 2
    assert main(["--pairs", "0"]) == 2
