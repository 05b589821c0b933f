"""Small tokenizers of every family, trained on the spot, and a way to serve the fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from steelyard.engines.base import Deployment, Engine
from steelyard.engines.fake import serve_fake

SYLLABLES = ["ba", "den", "kor", "li", "mu", "nat", "po", "ris", "sel", "tor", "va", "wen", "xi", "yol", "zan", "chi"]
WORDS = [a + b for a in SYLLABLES for b in SYLLABLES]
CORPUS = [" ".join(WORDS[(start * 7 + step * 13) % len(WORDS)] for step in range(40)) + "." for start in range(300)]


def _byte_level() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer, {}


def _wordpiece() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    )
    # Special tokens before and after every prompt: the hardest case for an exact length and an exact prefix.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer, {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def _unigram() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=500, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer, {"unk_token": "<unk>", "bos_token": "<s>"}


def _llama() -> Any:
    """As sentencepiece models convert: a normalizer that prepends a space, BPE without any pre-tokenizer."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words = [word for line in CORPUS[:60] for word in line.split()]
    tokenizer.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", "<s>"], show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer, {"unk_token": "<unk>", "bos_token": "<s>"}


def _bytes() -> Any:
    """No merges at all: a letter is a token, so no word is a single one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, {}


FAMILIES = {
    "byte_level_bpe": _byte_level, "wordpiece": _wordpiece, "unigram": _unigram, "llama": _llama, "bytes": _bytes,
}  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from transformers import PreTrainedTokenizerFast

    folders = {}
    for name, make in FAMILIES.items():
        raw, special = make()
        folders[name] = tmp_path_factory.mktemp(name)
        PreTrainedTokenizerFast(tokenizer_object=raw, **special).save_pretrained(str(folders[name]))
    return folders


@pytest.fixture(scope="session")
def tokenizers(tokenizer_folders: dict[str, Path]) -> dict[str, Any]:
    from steelyard.load.workloads import load_tokenizer

    return {name: load_tokenizer(str(folder)) for name, folder in tokenizer_folders.items()}


Serve = Callable[..., Engine]


def _deployment(
    arm: str = "demo", tokenizer: str = "", max_answer_wait_s: float = 60.0, model_name: str = "demo", **args: Any
) -> Deployment:
    return Deployment(
        arm=arm, engine="fake", model_name=model_name, weights="", tokenizer=tokenizer, chat_template=None, args=args,
        env={}, url=None, device="cpu", weights_digest=None, tokenizer_digest=None, template_digest=None,
        max_answer_wait_s=max_answer_wait_s,
    )  # fmt: skip


@pytest.fixture
def deployment() -> Callable[..., Deployment]:
    """Makes deployments of the fake; further names are its arguments."""
    return _deployment


@pytest.fixture
def serve(tmp_path: Path, tokenizer_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts fakes that count tokens with the byte-level tokenizer; all end with the test."""
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "home"))
    with ExitStack() as engines:

        def start(arm: str = "demo", max_answer_wait_s: float = 60.0, **args: Any) -> Engine:
            wanted = _deployment(arm, str(tokenizer_folders["byte_level_bpe"]), max_answer_wait_s, **args)
            return engines.enter_context(serve_fake(wanted, run_log_dir=tmp_path / "logs", start_timeout_s=20))

        yield start
