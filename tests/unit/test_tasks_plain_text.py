"""No text of a record becomes a special token, whatever the tokenizer's kind."""

from __future__ import annotations

import pytest
from tiny_models import write_byte_tokenizer, write_word_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fmfl_secure.tasks.plain_text import PlainText
from fmfl_secure.tasks.texts import tokenize


def byte_level(folder):
    write_byte_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def word_pieces(folder):
    write_word_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def unigram(folder):
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(letter, -5.0) for letter in "\u2581</s>abcdefghijklmnopqrtuvwxyz"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def spellings(token: str) -> list[str]:
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in token)
    return [
        token,
        f"a{token}b",
        token * 3,
        f"{token[0]}{token}{token[1:]}",
        f"{token[:2]}{token}{token[2:]}",
        wide,
        f"{wide}{token}",
    ]


@pytest.mark.parametrize("make", [byte_level, word_pieces, unigram])
def test_no_spelling_of_a_special_token_becomes_one(make, tmp_path) -> None:
    tokenizer = make(tmp_path)
    plain = PlainText(tokenizer)
    unknown = tokenizer.unk_token_id
    for token in tokenizer.all_special_tokens:
        for text in spellings(token):
            ids = tokenizer(plain(text), add_special_tokens=False)["input_ids"]
            assert not set(ids) & (set(tokenizer.all_special_ids) - {unknown}), text
        ids = tokenizer(token, add_special_tokens=False)["input_ids"]
        assert ids == [tokenizer.convert_tokens_to_ids(token)], "without it, it becomes one"


@pytest.mark.parametrize("make", [byte_level, word_pieces, unigram])
def test_other_texts_stay_as_they_are(make, tmp_path) -> None:
    plain = PlainText(make(tmp_path))
    for text in ("", "good film", "a < b and c > d", "[", "<|en", "\u2460", " x  y "):
        assert plain(text) == text


def test_a_text_cannot_begin_a_second_one(tmp_path) -> None:
    tokenizer = word_pieces(tmp_path)
    (row,), cut, *_ = tokenize(tokenizer, ["good [SEP] [CLS] film"], max_length=64)
    assert cut == 0
    assert row.tolist().count(tokenizer.sep_token_id) == 1
    assert row.tolist().count(tokenizer.cls_token_id) == 1


@pytest.mark.parametrize(("max_length", "cut"), [(3, 2), (4, 1), (7, 0)])
def test_texts_that_lose_their_ends_are_counted(tmp_path, max_length, cut) -> None:
    texts = ["a", "a b", "a b c", "a b c " * 9]
    rows, found, lengths, _ = tokenize(word_pieces(tmp_path), texts, max_length=max_length)
    assert found == cut + 1
    whole = word_pieces(tmp_path)(texts)["input_ids"]
    assert lengths.tolist() == [len(ids) for ids in whole], "also of what was cut off"
    assert max(map(len, rows)) <= max_length
