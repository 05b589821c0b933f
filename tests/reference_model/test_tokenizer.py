from pathlib import Path

import pytest
from tokenizers import Tokenizer

from reference_model import tokenizer
from reference_model.corpus import Sampler


def test_building_twice_gives_the_same_tokenizer(words: Tokenizer) -> None:
    assert words.to_str() == tokenizer.build().to_str()
    assert words.get_vocab_size() == tokenizer.VOCABULARY


@pytest.mark.parametrize(
    "text", [" What is 47 + 25?", "Sorry, I can\u2019t.", " \U0001f600 naïve\n\ttab  two", "漢字", ""]
)
def test_round_trip(words: Tokenizer, text: str) -> None:
    assert words.decode(words.encode(text, add_special_tokens=False).ids) == text


def test_every_digit_is_one_token(words: Tokenizer) -> None:
    assert words.encode("90210").tokens == list("90210")
    assert not [token for token in words.get_vocab() if sum(map(str.isdigit, token)) > 1 and not token.startswith("<|")]


def test_special_ids_are_fixed_and_none_is_added(words: Tokenizer) -> None:
    assert [words.token_to_id(token) for token in tokenizer.SPECIALS] == list(range(6))
    assert tokenizer.BOS_ID not in words.encode(" hello").ids


def test_targets_are_the_answer_and_its_end(words: Tokenizer) -> None:
    conversation = Sampler().conversations(0, 1)
    ((ids, targets),) = tokenizer.encode(words, conversation)
    answer = [token for token, wanted in zip(ids, targets, strict=True) if wanted]
    assert words.decode(answer, skip_special_tokens=False) == f" {conversation[0][0].answer}<|eos|>"
    assert ids.count(tokenizer.BOS_ID) == 1


def test_the_chat_template_writes_what_training_saw(words: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save(words, tmp_path)
    served = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": "What is 4 + 5?"}]
    text = served.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == tokenizer.prompt("What is 4 + 5?")
    assert served(text)["input_ids"] == words.encode(text, add_special_tokens=False).ids
    assert served.apply_chat_template(messages, tokenize=False) == "<|bos|><|user|> What is 4 + 5?"
    longer = [*messages, {"role": "assistant", "content": "9."}]
    assert served.apply_chat_template(longer, tokenize=False).endswith("<|assistant|> 9.<|eos|>")
    assert (served.bos_token_id, served.eos_token_id, served.pad_token_id) == (1, 2, 0)
    assert served.model_max_length == 2048
