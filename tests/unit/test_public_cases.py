"""Every public report that was recreated has a test of the default suite with its right value."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = ROOT.parent / "shared" / "cases"
TESTS = {
    "added-tokens-charged": (
        "tests/unit/test_models_assets.py::test_more_tokens_than_embeddings_are_refused_by_plan"
    ),
    "clip-processor-v5": (
        "tests/unit/test_models_assets.py::"
        "test_a_processor_as_transformers_5_saves_it_works_and_counts"
    ),
    "config-traceback": (
        "tests/unit/test_models_base.py::"
        "test_a_configuration_that_a_library_rejects_is_a_typed_error"
    ),
    "exif-rotated": "tests/unit/test_pictures_read.py::test_photographs_are_turned_upright",
    "merged-classifier-random-head": (
        "tests/integration/test_models_out.py::"
        "test_a_merged_classifier_is_never_opened_with_a_random_head"
    ),
    "messages-trained-as-json": (
        "tests/unit/test_left_out.py::test_what_is_no_text_is_never_trained_on_as_one"
    ),
    "missing-file-charged": (
        "tests/integration/test_nothing_charged.py::"
        "test_a_site_without_usable_data_is_out_before_anybody_reserves"
    ),
    "ner-hf-parquet": (
        "tests/unit/test_tags_of_parquet.py::test_every_way_to_write_tags_reads_the_same"
    ),
    "no-tokenizer-all-unk": (
        "tests/unit/test_models_assets.py::test_a_folder_without_a_tokenizer_is_refused"
    ),
    "png16-saturated": (
        "tests/unit/test_pictures_read.py::test_16_bits_are_scaled_by_the_range_of_the_format"
    ),
    "rows-dropped-in-silence": (
        "tests/integration/test_rows_left_out.py::"
        "test_evaluate_says_of_how_many_and_refuses_figures_of_few"
    ),
}


@pytest.mark.parametrize("case", TESTS)
def test_the_test_of_a_case_is_there_and_runs_by_default(case: str) -> None:
    file, _, name = TESTS[case].partition("::")
    module = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = [
        node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    assert len(found) == 1
    assert not any("slow" in ast.unparse(mark) for mark in found[0].decorator_list)


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not there: ../shared/cases")
def test_every_case_has_its_test() -> None:
    assert {case.name for case in CASES.iterdir() if case.is_dir()} == set(TESTS)
