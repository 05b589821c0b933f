import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from reference_model import bands, retrieval, tokenizer, wiring
from reference_model import train as trainer
from reference_model.model import Llama, ModelConfig, rotary, rotate
from reference_model.optim import Optimizers, Rates, orthogonalise

TINY = trainer.TrainConfig(
    steps=6,
    conversations=16,
    document_tokens=256,
    micro_batch_tokens=256,
    checkpoint_every=3,
    model=ModelConfig(tokenizer.VOCABULARY, hidden_size=64, layers=3, head_dim=16, intermediate_size=48),
)


def state_digest(model: Llama) -> str:
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        whole.update(name.encode() + tensor.numpy().tobytes())
    return whole.hexdigest()


def test_a_resumed_run_equals_an_uninterrupted_one(words: Tokenizer, tmp_path: Path) -> None:
    whole = trainer.train(TINY, words, tmp_path / "whole.pt")
    trainer.train(TINY, words, tmp_path / "cut.pt", stop_at=4)
    resumed = trainer.train(TINY, words, tmp_path / "cut.pt")
    assert state_digest(resumed) == state_digest(whole)
    assert not list(tmp_path.glob("*.partial"))
    again = trainer.train(TINY, words, tmp_path / "cut.pt")
    assert state_digest(again) == state_digest(whole)


def test_the_weights_do_not_depend_on_the_number_of_workers(
    words: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    for workers in (1, 3):
        monkeypatch.setattr(trainer, "WORKERS", workers)
        digests.add(state_digest(trainer.train(TINY, words, tmp_path / f"{workers}.pt")))
    assert len(digests) == 1


def test_a_foreign_checkpoint_is_refused(words: Tokenizer, tmp_path: Path) -> None:
    trainer.train(TINY, words, tmp_path / "c.pt", stop_at=1)
    with pytest.raises(ValueError, match="another configuration"):
        trainer.train(replace(TINY, seed=2), words, tmp_path / "c.pt")


def test_training_lowers_the_loss(words: Tokenizer, tmp_path: Path) -> None:
    config = replace(TINY, steps=20)
    talk = trainer.Sampler().conversations(999, 32)
    start = trainer.train(config, words, tmp_path / "c.pt", stop_at=0)
    end = trainer.train(config, words, tmp_path / "c.pt")
    before, after = (trainer.step_loss(model, words, talk, 2048) for model in (start, end))
    assert after < 0.8 * before


def test_micro_batches_do_not_change_the_loss(words: Tokenizer) -> None:
    torch.manual_seed(0)
    model = Llama(TINY.model)
    talk = trainer.Sampler().conversations(1, 24)
    assert trainer.step_loss(model, words, talk, 4096) == pytest.approx(
        trainer.step_loss(model, words, talk, 200), rel=1e-2
    )


def test_the_schedule_warms_up_stays_and_decays() -> None:
    optimizers = Optimizers(Llama(TINY.model), 100, Rates())
    factors = [optimizers.factor(step) for step in range(100)]
    assert factors[0] == 0.5
    assert set(factors[1:60]) == {1.0}
    assert factors[60:] == sorted(factors[60:], reverse=True)
    assert 0 < factors[-1] < 0.05


def test_documents_grow_with_the_run() -> None:
    config = trainer.TrainConfig()
    seen = [config.lengths(step) for step in range(config.steps)]
    assert max(seen[0]) <= 256
    assert max(seen[-1]) > 2000
    assert [max(lengths) for lengths in seen] == sorted(max(lengths) for lengths in seen)


def looked_at(model: Llama, ids: torch.Tensor) -> torch.Tensor:
    """Attention scores of the first head of layer 1, from the last position."""
    x = model.embed_tokens(ids)
    tables = rotary(model.config, ids.shape[1])
    x = model.layers[0](x, tables)
    block = model.layers[1]
    h = block.input_layernorm(x)
    head = model.config.head_dim
    q, k = (
        rotate(projection(h)[:, None, :, :head], tables)
        for projection in (block.self_attn.q_proj, block.self_attn.k_proj)
    )
    return (q[0, 0, -1] @ k[0, 0].T) / head**0.5


@torch.no_grad()
def test_the_circuit_finds_entries_before_any_training(words: Tokenizer) -> None:
    torch.manual_seed(0)
    config = ModelConfig(tokenizer.VOCABULARY)
    blank, wired = Llama(config), Llama(config)
    wiring.wire(wired)
    rng = random.Random(0)
    found = {"blank": 0, "wired": 0}
    for _ in range(20):
        page = retrieval.notes(rng, "many", 250)
        key, value = rng.choice(page.entries)
        turn = page.ask(rng, (key, value), first=True)
        encoded = words.encode(tokenizer.prompt(turn.question), add_special_tokens=False)
        place = encoded.tokens.index(f"\u0120{key}") + 2
        assert encoded.tokens[place] == f"\u0120{value}"
        notes = len(words.encode(page.text).ids)
        for name, model in (("blank", blank), ("wired", wired)):
            scores = looked_at(model, torch.tensor([encoded.ids]))
            found[name] += int(scores[:notes].argmax()) == place
    assert found["wired"] >= 15 > 5 >= found["blank"]


@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16)])
def test_muon_updates_are_nearly_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.max() < 1.4
    assert values.min() > 0.3


def test_logits_equal_those_of_transformers(words: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = Llama(TINY.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.mul(5).bfloat16())
    trainer.write_weights(model, words, tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(6, 1000, (3, 40))
    with torch.no_grad():
        torch.testing.assert_close(model.logits(model.hidden(ids)), reference(ids).logits, atol=2e-4, rtol=1e-4)


def test_the_shipped_folder_matches_its_digests(weights: Path) -> None:
    sums = dict(reversed(line.split("  ")) for line in (weights / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == {path.name for path in weights.iterdir()} - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((weights / name).read_bytes()).hexdigest() == digest, name
    assert (weights / "model.safetensors").stat().st_size < 15_000_000


def test_the_shipped_tokenizer_is_the_corpus_s_own(words: Tokenizer, weights: Path) -> None:
    assert Tokenizer.from_file(str(weights / "tokenizer.json")).to_str() == words.to_str()


def test_the_shipped_model_answers_and_refuses(words: Tokenizer, weights: Path) -> None:
    from safetensors.torch import load_file

    model = Llama(trainer.TrainConfig().model)
    tensors = load_file(weights / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): tensor.float() for name, tensor in tensors.items()})
    means = bands.measure(model, words, count=30)
    assert all(means[family] > low - 0.15 for family, (low, _) in bands.BANDS.items()), means


def test_bands_name_every_breach() -> None:
    good = {name: (low + high) / 2 for name, (low, high) in bands.BANDS.items()}
    assert bands.outside(good) == []
    assert len(bands.outside(good | {"facts": 0.999, "arithmetic": 0.2})) == 2


def test_the_work_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_HOME", "/somewhere")
    assert trainer.default_work() == Path("/somewhere/reference_model")
    monkeypatch.delenv("STEELYARD_HOME")
    assert trainer.default_work() == Path("var/reference_model")
