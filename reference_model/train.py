"""Train the reference model from scratch on a CPU and write the served weights.

    python -m reference_model.train --out reference_model/weights [--work DIR]

The data and the learning rate are functions of the step, and a checkpoint holds model, optimizers and step in one
file replaced atomically: a killed run resumes exactly. Exit status 1 means that the trained model lies outside
the bands of `bands.py`; the weights are then left in the work folder only.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import shutil
import sys
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from reference_model import bands, tokenizer
from reference_model.corpus import Sampler, Turn
from reference_model.model import Llama, ModelConfig, export
from reference_model.optim import Optimizers

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

WORKERS = min(4, os.cpu_count() or 1)
"""Micro-batches computed side by side; the weights do not depend on it."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines the run, besides the corpus."""

    steps: int = 1000
    conversations: int = 320
    micro_batches: int = 8
    muon_lr: float = 0.02
    adam_lr: float = 0.005
    checkpoint_every: int = 100
    seed: int = 1
    model: ModelConfig = field(default_factory=lambda: ModelConfig(tokenizer.VOCABULARY))


def batches(encoded: list[tuple[list[int], list[bool]]], count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Sort by length and cut into `count` right-padded micro-batches of ids and target masks."""
    ordered = sorted(encoded, key=lambda pair: len(pair[0]))
    size = -(-len(ordered) // count)
    made = []
    for start in range(0, len(ordered), size):
        rows = ordered[start : start + size]
        length = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), length), tokenizer.PAD_ID)
        targets = torch.zeros((len(rows), length), dtype=torch.bool)
        for number, (row, wanted) in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            targets[number, : len(row)] = torch.tensor(wanted)
        made.append((ids, targets))
    return made


def gradient(
    model: Llama, batch: tuple[torch.Tensor, torch.Tensor], wanted: int
) -> tuple[float, tuple[torch.Tensor, ...]]:
    """Loss and gradients of one micro-batch, both divided by the `wanted` answer tokens of the whole step."""
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(*batch) / wanted
    return loss.item(), torch.autograd.grad(loss, tuple(model.parameters()))


def step_loss(
    model: Llama, words: Tokenizer, conversations: list[list[Turn]], micro_batches: int, pool: Executor | None = None
) -> float:
    """Set the gradients of one step; returns the mean loss (nats) of its answer tokens.

    Micro-batches may run side by side in `pool`. They are summed in their own order and each uses one thread, so the
    result does not depend on the number of workers; on a busy machine this is also much faster than threads inside
    each operation, which wait for each other at every one.
    """
    encoded = tokenizer.encode(words, conversations)
    wanted = sum(sum(targets) for _, targets in encoded)
    run = map if pool is None else pool.map
    parts = list(run(lambda batch: gradient(model, batch, wanted), batches(encoded, micro_batches)))
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.stack([gradients[number] for _, gradients in parts]).sum(0)
    return sum(loss for loss, _ in parts)


def save_checkpoint(path: Path, step: int, model: Llama, optimizers: Optimizers, config: TrainConfig) -> None:
    """Write to a sibling and rename, so that a kill at any moment leaves a whole checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {"step": step, "config": asdict(config), "model": model.state_dict(), "optimizers": optimizers.state()}
    torch.save(state, partial)
    partial.replace(path)


def train(
    config: TrainConfig, words: Tokenizer, checkpoint: Path, stop_at: int | None = None, log_every: int = 50
) -> Llama:
    """Run from the checkpoint, if one of the same configuration exists, to `stop_at` (default: the end).

    Raises ValueError for a checkpoint of another configuration.
    """
    torch.manual_seed(config.seed)
    model = Llama(config.model)
    optimizers = Optimizers(model, config.steps, config.muon_lr, config.adam_lr)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["config"] != asdict(config):
            raise ValueError(f"{checkpoint} belongs to another configuration; choose another --work or remove it")
        model.load_state_dict(state["model"])
        optimizers.load(state["optimizers"])
        first = state["step"]
    sampler = Sampler()
    last = config.steps if stop_at is None else stop_at
    started = time.monotonic()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(WORKERS) as pool:
        for step in range(first, last):
            talk = sampler.conversations(step, config.conversations)
            loss = step_loss(model, words, talk, config.micro_batches, pool)
            optimizers.apply(step)
            if (step + 1) % log_every == 0:
                log.info("step %d/%d loss %.4f %.0f s", step + 1, config.steps, loss, time.monotonic() - started)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == last:
                save_checkpoint(checkpoint, step + 1, model, optimizers, config)
    return model


def write_weights(model: Llama, words: Tokenizer, folder: Path) -> None:
    """Write the complete served folder, SHA256SUMS included."""
    folder.mkdir(parents=True, exist_ok=True)
    export(model, folder, tokenizer.BOS_ID, tokenizer.EOS_ID, tokenizer.PAD_ID)
    tokenizer.save(words, folder)
    (folder / "model.safetensors").chmod(0o644)
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(sums))


def default_work() -> Path:
    """`$STEELYARD_HOME/reference_model`, or `./var/reference_model`."""
    return Path(os.environ.get("STEELYARD_HOME", "var")) / "reference_model"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m reference_model.train", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the served weights, replaced on success")
    parser.add_argument("--work", type=Path, default=None, help="folder of checkpoints (default: see default_work)")
    parser.add_argument("--steps", type=int, default=TrainConfig.steps)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    work = options.work or default_work()
    config = TrainConfig(steps=options.steps)
    words = tokenizer.build()
    model = train(config, words, work / "checkpoint.pt")
    rounded = model.to(torch.bfloat16).to(torch.float32)
    write_weights(rounded, words, work / "weights")
    status = bands.report(bands.measure(rounded, words))
    if status == 0:
        shutil.copytree(work / "weights", options.out, dirs_exist_ok=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
