"""The model's tokenizer, without importing torch where the folder alone is enough."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.errors import InputError


@dataclass(frozen=True, eq=False)
class Tokens:
    """Text to token ids as the model's tokenizer does it, never truncated.

    `encode_with` adds the tokenizer's special tokens if its second argument says so. `prefix_id` conditions the
    first token of a text without context: beginning-of-sequence, or else end-of-sequence.
    """

    source: str
    encode_with: Callable[[str, bool], list[int]]
    prefix_id: int | None
    bos: str | None

    def encode(self, text: str) -> list[int]:
        """Ids of a whole prompt: special tokens as the tokenizer adds them, but never a second beginning."""
        return self.encode_with(text, not (self.bos and text.startswith(self.bos)))

    @functools.lru_cache(maxsize=200_000)  # noqa: B019 - tokenizers live as long as the process
    def pair(self, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of a context and of what follows it, split as lm-eval does: spaces at the seam go right.

        Without a context the prefix token stands in for it. Raises InputError if there is no such token.
        """
        if not context:
            after = self.encode_with(continuation, False)
            if self.prefix_id is None:
                raise InputError(
                    "a task asks for the likelihood of a text without context, but the tokenizer has neither a "
                    "beginning nor an end token.",
                    remedy="Choose another task.",
                )
            if after[:1] == [self.prefix_id]:
                return tuple(after[:1]), tuple(after[1:])
            return (self.prefix_id,), tuple(after)
        bare = context.rstrip()
        whole = self.encode(context + continuation)
        before = len(self._context(bare))
        return tuple(whole[:before]), tuple(whole[before:])

    @functools.lru_cache(maxsize=50_000)  # noqa: B019
    def _context(self, context: str) -> tuple[int, ...]:
        return tuple(self.encode(context))

    @functools.lru_cache(maxsize=50_000)  # noqa: B019
    def count(self, text: str) -> int:
        """Tokens of a text by itself, without special tokens."""
        return len(self.encode_with(text, False))


@functools.lru_cache(maxsize=8)
def load_tokens(source: str) -> Tokens:
    """The tokenizer of a folder or hub id. Raises InputError if it cannot be loaded."""
    try:
        return _from_folder(Path(source)) or _from_transformers(source)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the tokenizer {source} cannot be loaded: {' '.join(str(error).split())[:300]}",
            remedy="Name a folder with tokenizer.json, or a hub id that is cached or reachable.",
            field="model.tokenizer",
        ) from error


def _from_folder(folder: Path) -> Tokens | None:
    """From `tokenizer.json` alone; None if its configuration says something only transformers can apply."""
    file, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not file.is_file() or not settings.is_file():
        return None
    from tokenizers import Tokenizer

    config: dict[str, Any] = json.loads(settings.read_text(encoding="utf-8"))
    backend = Tokenizer.from_file(str(file))
    # A saved tokenizer may carry a length to cut at.
    backend.no_truncation()
    backend.no_padding()

    def name(key: str) -> str | None:
        token = config.get(key)
        return token.get("content") if isinstance(token, dict) else token

    bos, eos = name("bos_token"), name("eos_token")
    bos_id = backend.token_to_id(bos) if bos else None
    adds = backend.encode("", add_special_tokens=True).ids
    if config.get("add_bos_token") not in (None, adds == [bos_id]) or adds not in ([], [bos_id]):
        return None
    prefix = bos_id if bos_id is not None else (backend.token_to_id(eos) if eos else None)
    return Tokens(
        source=str(folder),
        encode_with=lambda text, special: backend.encode(text, add_special_tokens=special).ids,
        prefix_id=prefix,
        bos=bos,
    )


def _from_transformers(source: str) -> Tokens:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return Tokens(
        source=source,
        encode_with=lambda text, special: list(tokenizer.encode(text, add_special_tokens=special)),
        prefix_id=prefix,
        bos=tokenizer.bos_token,
    )
