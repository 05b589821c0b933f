"""Prompts and arrival times of a trial, from a seed and the model's own tokenizer.

A prompt is made of words of the tokenizer's vocabulary that stay one token wherever they stand, so its length is
exact as the engine will count it: special tokens included, proven by encoding the finished text again. Prompts
differ between blocks, so no cache carries over, and are the same in every arm of a block, so differences pair.
"""

from __future__ import annotations

import random
import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.digest import digest, text_digest
from steelyard.errors import InputError
from steelyard.study import LoadPoint, Workload

MAX_CANDIDATES = 6000
ENOUGH_WORDS = 24
PHRASE_TOKENS = 24
ATTEMPTS = 200
_WORD_START = "\u0120\u2581"
_PLAIN = re.compile(r"[A-Za-z]+")
_FALLBACK = tuple("abcdefghijklmnopqrstuvwxyz")
_ENDINGS = (*(f" {letter}" for letter in _FALLBACK), *_FALLBACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRequest:
    """One request before it is sent. `prompt_tokens` counts special tokens, as engines do; `scheduled_s` is 0 in a
    closed loop, else seconds after the first arrival.
    """

    index: int
    prompt: str
    prompt_hash: str
    prompt_tokens: int
    output_tokens: int
    scheduled_s: float


def load_tokenizer(path_or_id: str) -> Any:
    """The tokenizer of a local folder (or of a hub id already cached), through transformers.

    Raises InputError if there is none: without the model's own tokenizer no prompt length is exact.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path_or_id, local_files_only=Path(path_or_id).is_dir())
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise InputError(
            f"no tokenizer can be loaded from {path_or_id!r}: {str(error).splitlines()[0]}",
            remedy="Name a folder with tokenizer.json, or a hub id that this machine may fetch.",
            field="model.tokenizer",
        ) from error


def plan_requests(point: LoadPoint, tokenizer: Any, *, seed: int, block: int) -> list[PlannedRequest]:
    """The requests of one trial, the same on every machine and in every arm.

    Raises InputError naming the workload if its length cannot be reached with this tokenizer.
    """
    return _plan(point, tokenizer, point.workload.requests, ["measured", seed, block])


def plan_warmup(point: LoadPoint, tokenizer: Any, *, seed: int, block: int, requests: int) -> list[PlannedRequest]:
    """Requests of the same shape that no measured request shares a prefix with; all due at once."""
    return _plan(point, tokenizer, requests, ["warmup", seed, block])


def plan_probe(
    point: LoadPoint, tokenizer: Any, *, seed: int, block: int, part: int, requests: int
) -> list[PlannedRequest]:
    """The requests of one probe of a search for capacity, the same in every arm of a block."""
    return _plan(point, tokenizer, requests, ["probe", seed, block, part])


def arrivals(rate: float, requests: int, rng: random.Random) -> list[float]:
    """Poisson arrival times in seconds, the first at 0: gaps are exponential, not rescaled to a fixed total."""
    times = [0.0]
    for _ in range(requests - 1):
        times.append(times[-1] + rng.expovariate(rate))
    return times[:requests]


def _plan(point: LoadPoint, tokenizer: Any, requests: int, key: list[Any]) -> list[PlannedRequest]:
    workload = point.workload
    # A seed from a digest: Python's own hash() of a string differs between processes.
    rng = random.Random(int(digest([*key, point.name])[:16], 16))
    writer = _Writer.of(tokenizer)
    due = arrivals(point.load.rate, requests, rng) if point.load.rate is not None else [0.0] * requests
    prompts = _prompts(workload, writer, requests, rng)
    lengths = _lengths(workload, requests, rng)
    return [
        PlannedRequest(
            index=index,
            prompt=prompt,
            prompt_hash=text_digest(prompt),
            prompt_tokens=workload.prompt_tokens,
            output_tokens=length,
            scheduled_s=scheduled,
        )
        for index, (prompt, length, scheduled) in enumerate(zip(prompts, lengths, due, strict=True))
    ]


def _lengths(workload: Workload, requests: int, rng: random.Random) -> list[int]:
    """Output lengths: the same multiset in every trial, so that trials ask for the same work, in a drawn order."""
    reach = workload.output_spread * workload.output_tokens
    middle = (requests - 1) / 2 or 1
    lengths = [max(1, round(workload.output_tokens + reach * (index - middle) / middle)) for index in range(requests)]
    rng.shuffle(lengths)
    return lengths


def _prompts(workload: Workload, writer: _Writer, requests: int, rng: random.Random) -> list[str]:
    heads: list[list[str]] = [[]]
    if workload.shared_tokens is not None:
        heads = [writer.head(workload.shared_tokens, rng, workload.name) for _ in range(workload.prefixes)]
    # Within a group the first word after the head differs, so that no more than the declared tokens are shared.
    firsts = [writer.draw_distinct(-(-requests // len(heads)), rng) for _ in heads]
    seen: set[str] = set()
    prompts = []
    for index in range(requests):
        group, member = index % len(heads), index // len(heads)
        for attempt in range(ATTEMPTS):
            first = firsts[group][member] if attempt == 0 else writer.word(rng)
            start = [*heads[group], first]
            phrase = None
            if workload.kind == "repetitive":
                phrase = [first, *writer.words(min(PHRASE_TOKENS, max(4, workload.prompt_tokens // 4)) - 1, rng)]
            text = writer.write(start, workload.prompt_tokens, rng, phrase)
            if text is None or text in seen:
                continue
            if heads[group] and not writer.same_start(text, heads[group], workload.shared_tokens or 0):
                continue
            seen.add(text)
            prompts.append(text)
            break
        else:
            raise InputError(
                f"workload {workload.name}: no {requests} different prompts of exactly {workload.prompt_tokens} "
                f"tokens can be written with this tokenizer",
                remedy="Use longer prompts or fewer requests, or check that model.tokenizer is the model's own.",
                field=f"workloads.{workload.name}.prompt_tokens",
            )
    return prompts


class _Writer:
    """Writes texts of exact token length under one tokenizer."""

    _known: weakref.WeakKeyDictionary[Any, _Writer] = weakref.WeakKeyDictionary()

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.pool = self._words_of_one_token()
        # Where single-token words are rare (byte or character vocabularies) any letters do, only slower to fit.
        self.exact = len(self.pool) >= ENOUGH_WORDS
        if not self.exact:
            self.pool = sorted({*self.pool, *(a + b for a in _FALLBACK for b in _FALLBACK)})

    @classmethod
    def of(cls, tokenizer: Any) -> _Writer:
        """The writer of a tokenizer, made once: reading the vocabulary costs more than planning a trial."""
        writer = cls._known.get(tokenizer)
        if writer is None:
            writer = cls._known[tokenizer] = cls(tokenizer)
        return writer

    def encode(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """Token ids of texts, as engines encode a prompt given as a string."""
        ids = self._tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]
        return [list(each) for each in ids]

    def _words_of_one_token(self) -> list[str]:
        pieces = self._tokenizer.get_vocab()
        special = set(self._tokenizer.all_special_tokens)
        marked = {piece[1:] for piece in pieces if piece[:1] in _WORD_START}
        # A vocabulary without word-start marks (WordPiece) marks the continuations instead.
        bare = marked or {piece for piece in pieces if piece not in special and not piece.startswith("##")}
        words = sorted(word for word in bare if _PLAIN.fullmatch(word))
        if len(words) > MAX_CANDIDATES:
            words = [words[index * len(words) // MAX_CANDIDATES] for index in range(MAX_CANDIDATES)]
        if not words:
            return []
        unknown = self._tokenizer.unk_token_id
        alone = self.encode([f"{word} {word} {word}" for word in words], special=False)
        pool: dict[int, str] = {}
        for word, ids in zip(words, alone, strict=True):
            # The first word may be cut otherwise, for it has no space before it; the other two must be one token.
            if len(ids) >= 3 and ids[-1] == ids[-2] and ids[-1] != unknown and ids.count(ids[-1]) in (2, 3):
                start = self._without_two(ids)
                if start is not None:
                    pool.setdefault(ids[-1], word)
        return sorted(pool.values())

    def _without_two(self, ids: list[int]) -> list[int] | None:
        decoded = self._tokenizer.decode(ids[-2:]).split()
        return ids[:-2] if len(decoded) == 2 and decoded[0] == decoded[1] else None

    def word(self, rng: random.Random) -> str:
        return self.pool[rng.randrange(len(self.pool))]

    def words(self, count: int, rng: random.Random) -> list[str]:
        return [self.word(rng) for _ in range(count)]

    def draw_distinct(self, count: int, rng: random.Random) -> list[str]:
        """`count` words, different as long as the vocabulary lasts."""
        drawn: list[str] = []
        while len(drawn) < count:
            drawn += rng.sample(self.pool, min(count - len(drawn), len(self.pool)))
        return drawn

    def write(
        self, start: Sequence[str], tokens: int, rng: random.Random, phrase: Sequence[str] | None = None
    ) -> str | None:
        """A text of exactly `tokens` tokens that begins with `start` and goes on with random words, or with `phrase`
        again and again; None if this draw cannot be fitted.
        """
        source = list(phrase) if phrase else [*start, *self.words(max(0, tokens - len(start)), rng)]
        parts = list(start)

        def extend(to: int) -> None:
            while len(parts) < to:
                parts.append(source[len(parts) % len(source)] if phrase or len(parts) < len(source) else self.word(rng))

        count = max(len(parts), tokens if self.exact else tokens // 4)
        for _ in range(24):
            extend(count)
            text = " ".join(parts[:count])
            over = len(self.encode([text])[0]) - tokens
            if over == 0:
                return text
            step = over if self.exact else (over // 3 or (1 if over > 0 else -1))
            if count - step < len(start) or (not self.exact and -8 < over < 0):
                break
            count -= step
        return self._fit(" ".join(parts[: max(count, len(start))]), tokens)

    def _fit(self, text: str, tokens: int) -> str | None:
        """`text` with letters appended until it has exactly `tokens` tokens, or None."""
        for _ in range(64):
            have = len(self.encode([text])[0])
            if have == tokens:
                return text
            if have > tokens:
                return None
            # Only the end of a text changes when something is appended, so only the end is encoded to choose.
            tail = text[-24:]
            base, *lengths = [len(ids) for ids in self.encode([tail, *(tail + ending for ending in _ENDINGS)])]
            fitting = [(length - base, -rank) for rank, length in enumerate(lengths) if length - base <= tokens - have]
            gain, rank = max(fitting, default=(0, 0))
            if gain <= 0:
                return None
            text += _ENDINGS[-rank]
        return None

    def head(self, tokens: int, rng: random.Random, workload: str) -> list[str]:
        """Words whose ids, after the leading special tokens, make exactly `tokens` tokens whatever word follows."""
        for _ in range(ATTEMPTS):
            probe = self.word(rng)
            before, after = self._specials(probe)
            text = self.write([probe], tokens + after, rng) if tokens > before else None
            if text is not None and self.same_start(f"{text} {self.word(rng)}", text.split(" "), tokens):
                return text.split(" ")
        raise InputError(
            f"workload {workload}: no prefix of exactly {tokens} shared tokens can be written with this tokenizer",
            remedy="Change shared_tokens, or check that model.tokenizer is the model's own.",
            field=f"workloads.{workload}.shared_tokens",
        )

    def same_start(self, text: str, head: Sequence[str], tokens: int) -> bool:
        """Whether `text` begins with exactly the tokens of `head`, and those are `tokens` many."""
        whole, start = self.encode([text, " ".join(head)])
        _, after = self._specials(head[0])
        start = start[: len(start) - after]
        return len(start) == tokens and whole[:tokens] == start

    def _specials(self, word: str) -> tuple[int, int]:
        """How many special tokens the tokenizer puts before and after a text."""
        (plain,), (full,) = self.encode([word], special=False), self.encode([word])
        for before in range(len(full) - len(plain) + 1):
            if full[before : before + len(plain)] == plain:
                return before, len(full) - len(plain) - before
        return 0, 0
