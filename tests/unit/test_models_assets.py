"""What libraries make up where a base model's folder lacks it is refused before any budget."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import make_federation
from task_cases import task_on

from fmfl_secure.api import Federation
from fmfl_secure.errors import ModelError
from fmfl_secure.models import find_base_model


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def text_task(folder: Path):
    return task_on(folder, "text-classification")


def save_tokenizer(folder: Path, vocabulary: dict[str, int], added: tuple[str, ...] = ()) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    fast.add_tokens(list(added))
    fast.save_pretrained(folder)


def test_a_folder_without_a_tokenizer_is_refused(copy: Path) -> None:
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer: neither tokenizer\.json") as refusal:
        text_task(copy).build_model(seed=0)
    assert "save_pretrained" in refusal.value.hint


@pytest.mark.parametrize("words", [(), ("nothing", "of", "it")])
def test_a_tokenizer_that_knows_no_words_is_refused(copy: Path, words: tuple[str, ...]) -> None:
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words][: 4 + len(words)]
    save_tokenizer(copy, {word: index for index, word in enumerate(known)})
    if not words:
        with pytest.raises(ModelError, match="knows next to no words: 100%"):
            text_task(copy).build_model(seed=0)
    else:  # three of sixteen: 81 % are unknown, which may be another language's
        text_task(copy).build_model(seed=0)


def test_words_that_the_tokenizer_lower_cases_away_are_unknown_ones(copy: Path) -> None:
    path = copy / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"] = {"type": "Lowercase"}
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {
        word if word.startswith("[") else word.upper(): index for word, index in vocabulary.items()
    }
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="knows next to no words"):
        text_task(copy).build_model(seed=0)


def test_more_tokens_than_embeddings_are_refused_by_plan(copy: Path, tmp_path: Path) -> None:
    vocabulary = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    save_tokenizer(copy, vocabulary, added=("[NAME]", "[DATE]"))
    federation = Federation(make_federation(tmp_path / "federation", copy))
    expected = f"has {len(vocabulary) + 2} tokens, the base model {len(vocabulary)} embeddings"
    with pytest.raises(ModelError, match=expected) as refusal:
        federation.predict()
    assert "resize_token_embeddings" in refusal.value.hint


def test_a_model_that_pads_every_text_needs_a_padding_token(tiny_models, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_models("siglip"), tmp_path / "siglip"))
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    del content["pad_token"]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="has no padding token") as refusal:
        task_on(folder, "image-text").build_model(seed=0)
    assert '"pad_token" in tokenizer_config.json' in refusal.value.hint


def test_a_processor_as_transformers_5_saves_it_works_and_counts(
    tiny_models, tmp_path: Path
) -> None:
    import transformers

    folder = Path(shutil.copytree(tiny_models("clip"), tmp_path / "clip"))
    (folder / "preprocessor_config.json").unlink()
    size = {"height": 16, "width": 16}
    with pytest.raises(ModelError, match="has no image processor"):
        task_on(folder, "image-classification").build_model(seed=0)
    transformers.CLIPProcessor(
        image_processor=transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size),
        tokenizer=find_base_model(str(folder)).load_tokenizer(),
    ).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    before = find_base_model(str(folder)).digest
    task = task_on(folder, "image-classification")
    task.build_model(seed=0)
    assert task.synthetic().collate(np.arange(1)).pixel_values.shape[2:] == (16, 16)
    processor = folder / "processor_config.json"
    processor.write_text(processor.read_text().replace("16", "24"))
    assert find_base_model(str(folder)).digest != before


@pytest.mark.parametrize("content", ["{", '{"model": {"type": "none"}}', '{"version": 1}', "[]"])
def test_a_tokenizer_that_a_library_rejects_is_a_typed_error(copy: Path, content: str) -> None:
    (copy / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="cannot load the tokenizer in"):
        text_task(copy).build_model(seed=0)
