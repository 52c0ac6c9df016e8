"""What `bench` prints for people, of every kind of value that a measurement returns."""

from fmfl_secure.cli.bench import _lines


def test_lists_of_words_and_numbers_are_one_line_and_lists_of_figures_a_block_each():
    measured = {
        "rounds": ["released", "lost"],
        "cohorts": [50, 49],
        "seconds": {"median": 0.123456, "each": [1.0, 2.5]},
        "rows": [{"peak": 3}, {"peak": 4}],
        "none": [],
    }
    assert _lines(measured, indent=0) == [
        "rounds: released, lost",
        "cohorts: 50, 49",
        "seconds:",
        "  median: 0.1235",
        "  each: 1, 2.5",
        "rows:",
        "  peak: 3",
        "rows:",
        "  peak: 4",
        "none: ",
    ]
