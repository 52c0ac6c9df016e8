"""`docs/data.md`, made from the tables that the code itself decides by.

python -m fmfl_secure.data.document > docs/data.md

Nothing imports it; a test compares the page with what it prints.
"""

# A row of a table is one line of Markdown, and full-width digits are what one of them is about.
# ruff: noqa: E501, RUF001

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from fmfl_secure.data import errors
from fmfl_secure.data.errors import DataError
from fmfl_secure.data.formats import FORMATS
from fmfl_secure.data.formats.base import COMPRESSED
from fmfl_secure.data.formats.foreign import FOREIGN, SYSTEM_FILES
from fmfl_secure.data.left_out import SORTS
from fmfl_secure.data.pictures import PICTURES
from fmfl_secure.data.pictures.base import MAX_BYTES, MAX_DEEP_PIXELS, MAX_PIXELS, MAX_RATIO
from fmfl_secure.data.pictures.pillow import RULES as PICTURE_RULES
from fmfl_secure.data.tag_schemes import RULES as SCHEMES

_FORMS = """\
# A site's data

A table or folder of one of these forms. Columns are named in `[task]`. Nothing is inferred from a
column: what a value reads as depends on that value and the header alone. An unusable row is left
out or takes the site out, as `task.on_bad_row` says; `fmfl-secure check` goes through all data and
costs nothing.

The tables are made from the ones that the code decides by (`python -m fmfl_secure.data.document`),
and a test keeps this page equal to them.

## Forms

The name decides, whatever the content looks like; a name that no form claims is refused, and so is
a content of another form than the name says. Before anything is charged it is checked that the data
open as a whole, that they have the columns, a row, and a picture of a form that is read
([decision 1](decisions/0001-commit-before-reading.md)).
Texts are UTF-8, with a byte-order mark or without one.
"""

_OF_FORMS = """\

A `.gz` is unpacked to 2 GiB at most. `fmfl-secure partition` splits the forms marked so.

*(Every form reads the same rows, and says before a record is read what it can:
`tests/unit/test_data_formats.py::test_every_form_reads_the_same_rows`; what unpacks to too much:
`tests/unit/test_bombs.py::test_parquet_that_unpacks_to_too_much_is_refused`.)*

## What a file is that is none of them

Refused by name, before anything is charged, by how it begins:
"""

_OF_FOREIGN = """\

*(`tests/unit/test_data_formats.py::test_a_file_that_is_something_else_is_told_what_it_is`.)*

## Refusals

A fault of the whole data stops the site before it is charged. A fault of a row is counted by what
it is called here, and `task.on_bad_row` decides. Where every row has one, such as labels of another
spelling, or where the quoting of a CSV file breaks, that stops the site once a round is charged:
what rows hold is nobody's to know for nothing. `fmfl-secure check` finds it at no cost.
*(`tests/unit/test_looked_at_before_a_charge.py`.)*
"""

_ROWS = """\

## Rows that cannot be used

Whatever is left out is counted by what is wrong with it, with the numbers of the first five rows:
in a `check`, in the site's own log (with `run`, in the terminal), where `evaluate` and `predict`
are asked. No value is quoted, and outside the site nobody hears of it: a count is data.
`evaluate` prints how many records its figures are of, and refuses where more than 5 % of the rows
would be left out, unless `--max-left-out` allows it. `predict` leaves nothing out: it refuses.

A label is compared exactly as it is written. One that misses a configured label by case, white
space, `1.0` for `1`, `True` for `1`, or how its characters are composed, is named as such. What
is meant, the settings say, for all sites:

```toml
[task]
label_aliases = [["Positive", "positive"], ["1.0", "positive"]]
```

Where labels are codes, or even where they are words, `label_texts` says in public words what each of them means. The
head of a text classification then starts from the encoder's embeddings of these texts, which costs no epsilon
([what it brings](results.md#what-pays-at-the-server)):

```toml
[task]
labels = ["1", "2"]
label_texts = ["neoplasms", "digestive system diseases"]
```

*(`tests/unit/test_label_start.py::test_a_text_is_taken_for_the_label_that_it_means`.)*

*(`tests/integration/test_rows_left_out.py::test_a_site_that_loses_half_of_its_rows_learns_of_it_and_nobody_else`,
`tests/integration/test_rows_left_out.py::test_evaluate_says_of_how_many_and_refuses_figures_of_few`,
`tests/unit/test_left_out.py::test_a_near_miss_of_a_label_is_named_as_such`.)*
"""

_TEXTS = """\

## Texts

A text is what the file holds as a text. A JSON list or object, a number, `true` and `false`, a
date or time in a text column are refused, in JSON Lines and in Parquet: render messages as one text
with the model's chat template. A cell that says nothing but `nan`, `NULL`, `None` or `NaT`, in any
case, is a missing one; so is one of which nothing can be seen, such as zero-width spaces. A JSON
object with a key twice, at any depth, is a bad row. Where the tokenizer knows less than half of a
text's tokens, `check`, `evaluate`, `predict` and the site's own log count the text: it is next to
nothing to the model.
*(`tests/unit/test_left_out.py::test_what_is_no_text_is_never_trained_on_as_one`,
`tests/unit/test_more_silence.py::test_a_key_that_an_object_has_twice_is_a_bad_row`,
`tests/unit/test_more_silence.py::test_texts_that_the_tokenizer_does_not_know_are_counted`.)*

## Several labels a record

For `multi-label-classification`, a column of lists in JSON Lines or Parquet, or of texts with
`task.label_separator` between the labels, white space around it of no account. An empty list says
that no label holds; a missing list or an empty cell says nothing and is a bad row, unless it is
what `task.no_label` says. Each label is compared as one is, with the same near misses and aliases;
one that stands twice holds once. A list that was printed as a text (`"['a', 'b']"`) is refused.
*(`tests/unit/test_tasks_multi_label.py::test_what_is_no_set_of_labels_is_named`.)*

## Words with tags

Two columns of lists, of texts and of as many tags, in JSON or Parquet; or a CoNLL file, whose
columns are called `tokens` and `tags` and whose `-DOCSTART-` can be units: `task.unit = "document"`. Integers for tags
read as the names that Hugging Face's datasets write into a Parquet file's schema (`ClassLabel`),
or as `task.tag_names` says, such as `["O", "B-NAME", "I-NAME"]`; an integer without a name is
refused. *(`tests/unit/test_tags_of_parquet.py::test_every_way_to_write_tags_reads_the_same`.)*

What is learned and answered is BIO. `task.tag_scheme` says what files have, never the files
themselves; `check` says by which rule they were read, and asks where an entity begins with `I-`.
SCHEMES_HERE
*(`tests/unit/test_tag_schemes.py::test_every_scheme_reads_as_the_same_bio`.)*
"""

_PICTURES = """\

## Pictures

In a folder with a subfolder for each label; by their paths in a table, from the table's folder; or
in the table itself: bytes or `{bytes, path}` in Parquet and in folders of Hugging Face's datasets,
arrays of shape (n, height, width) or (n, height, width, channels) in NPZ. All become RGB of 8 bits.
What decides is the file's content and header, never its name and never its pixels.
"""

_OF_PICTURES = """\

Arrays of `uint8` are shades as they are, `uint16` are scaled as 16 bits are; other numbers need
`task.image_window`. Colour profiles (ICC) and DICOM's overlays are not applied. A JPEG that breaks
off with a mark of its end is grey from there on, which its decoder does not tell.

A number in a column of labels that the schema names (`ClassLabel`) is that name where the settings
have it among their labels, and else the number. A number that is itself a configured label and
stands for another is refused.

`fmfl-secure check` says what was read: how many of each form and mode, with the least and greatest
value, and the commonest sizes. Who sees that 12 bits in 16 end at 4095 knows the window. With
`--contact-sheet FILE` it writes some of the pictures, as a model is given them, to a PNG that only
you can read. It shows people's pictures: it stays at the site.

A label's subfolder is not searched further: a folder in it is a bad row. Files beside the
subfolders, and files that systems leave in folders, are no rows: passed over, and counted:
"""

_OF_SYSTEMS = """\

**DICOM.** With `task.unit = "PatientID"` and a folder, all pictures of a patient are one unit, by
the id in their headers and the rules below; a picture that does not say whose it is, is a bad row.
In a table the unit is a column, as ever. Of a header nothing else is kept, and no word of it is in
a refusal, a warning or a log line.

*(`tests/unit/test_picture_forms.py::test_16_bit_colour_of_png_is_scaled_from_all_its_bits`,
`tests/unit/test_picture_forms.py::test_what_pillow_reads_otherwise_than_it_is_is_refused_by_name`,
`tests/unit/test_pictures_read.py::test_16_bits_are_scaled_by_the_range_of_the_format`,
`tests/unit/test_pictures_read.py::test_photographs_are_turned_upright`,
`tests/unit/test_pictures_read.py::test_a_bomb_is_refused_before_it_is_decoded`,
`tests/unit/test_pictures_in_tables.py::test_a_split_of_medmnist_is_named_behind_the_file`,
`tests/unit/test_dicom.py::test_a_patient_s_series_is_one_unit_where_the_settings_say_so`,
`tests/unit/test_dicom.py::test_no_word_of_the_header_is_told_where_pydicom_would_tell_it`,
`tests/unit/test_picture_check.py::test_check_tells_of_pictures_and_writes_the_sheet_where_it_says`.)*
"""

_UNITS = """\

## Whose a row is

With `task.unit = "patient_id"` one protected unit is a person: everybody's rows are sampled and
clipped together, and the ledger counts one. That holds as far as **one person has one id**.
Somebody who is in the file as `P7`, `p7` and `P-7` is three units, each with a whole person's
influence, and is protected at three times epsilon.

**Always one id**, as it cannot be two people:

| | |
| --- | --- |
| letters that are composed or taken apart (Unicode NFC) | `é` as one character or two |
| white space around an id, and any run of it inside, no-break and full-width spaces too | `P7`, ` P7`, `P 7` and `P  7` |
| what is drawn as nothing: zero-width characters, soft hyphens, byte-order marks, controls | |
| a whole number with a fraction of zeros | `7`, `7.0`, `7.00`, in all formats |
| a *number* of JSON or Parquet, by its value | `7`, `7.0` and `7e0`; `1.10` and `1.1` |

**Never one id by itself**, as it can be two people: in text, `7` and each of `007`, `+7` and
`7e0`; `1.1` and `1.10`; whatever differs in case, punctuation, leading zeros, or full width.

**No id**, so that the row is a bad one and neither shared nor a person by itself:

- empty, white space, without any letter or digit; `NaN`, `NA`, `N/A`, `null`, `None`, `NaT`, `unknown`, `missing`,
  `undefined`, infinities and a spreadsheet's `#REF!`, in any case. Where `NA` are somebody's initials, put something
  before every id;
- a number that may stand for several: a float from 2^53 on (2^24 in single precision), one that a float does not read
  back, and `1.23457E+11`, which is what a spreadsheet leaves of a long id. Export such a column as text. Integers and
  texts of any length are exact;
- a list or an object.

Everything else is an id as it stands: dates as their text, `true` and `false` as those words.

## What may be one person or two

`fmfl-secure check` asks about ids that are nearly alike, at the site, with counts and a few
examples. **What it prints is private.** A setting of the federation answers, for all sites:

```toml
[task]
unit = "patient_id"
unit_normalisation = ["case", "zeros"]
```

| rule | is no difference | and so one id |
| --- | --- | --- |
| `case` | upper and lower case | `P7`, `p7` |
| `punctuation` | what is neither letter, digit nor accent, spaces too | `P-7`, `P 7`, `P7`, `+7`, `7` |
| `zeros` | zeros that begin a number, unless a digit stands before the punctuation before them | `007`, `7`; `P-007`, `P-7`; not `W3-007`, `W3-7` |
| `compatibility` | full width, superscripts, ligatures (Unicode NFKC) | `P７`, `P7` |
| `exact` | nothing more: ids that still differ are different people | |

Rules combine, and a rule more never tells apart what another merges. `[]`, the default, merges
nothing of this and leaves the question open; a rule settles its own, and `exact` all that are
left. When in doubt, merge: two people in one unit are both protected, one person in two units is
not. Letters of different scripts that look alike (a Cyrillic and a Latin P) are not asked about.

The setting is public, part of the digest that every site agrees on, and stated in the report.
Data of different files or sites are never joined by id. `fmfl-secure partition --unit-column
patient_id --unit-normalisation case` splits by the same ids.

*(Which forms are one id: `tests/unit/test_unit_ids.py::test_what_cannot_be_two_people_is_one`;
which may be two:
`tests/unit/test_unit_ids.py::test_what_may_be_two_people_is_one_by_its_rule_alone`; the same in
every format: `tests/unit/test_unit_ids.py::test_every_format_gives_the_same_units`; to the
sampler and the clipped sum:
`tests/integration/test_patient_units.py::test_a_patient_of_ten_spellings_is_one_unit_of_the_sampler`.)*

## Data that earlier versions trained on

`fmfl-secure doctor FOLDER`, in a federation's folder or a site's kit, says how many spellings of
the unit column 0.1.0 took for one person each, and asks the questions above. It also finds
policies below the plan with noise in shares, and grants whose delta is above 1 / (10 × the
declared population)
(`tests/unit/test_doctor_federation.py::test_people_under_several_ids_are_asked_about`).
"""


def data_document() -> str:
    """Writes the page `docs/data.md`, as Markdown."""
    return "".join(
        [
            _FORMS,
            _forms(),
            _OF_FORMS,
            _table(("a file that is", "what to do"), ((f.name, f.advice) for f in FOREIGN)),
            _OF_FOREIGN,
            _refusals(),
            _ROWS,
            _TEXTS.replace("SCHEMES_HERE\n", _schemes()),
            _PICTURES,
            _pictures(),
            _OF_PICTURES,
            _table(("name", "what it is"), ((f"`{n}`", w) for n, w in SYSTEM_FILES.items())),
            _OF_SYSTEMS,
            _UNITS,
        ]
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _forms() -> str:
    header = ("form", "names", "known by", "columns are known from", "refused")
    rows = []
    for kind in FORMATS:
        names = ", ".join(
            f"`{suffix}`" + (f", `{suffix}{COMPRESSED}`" if kind.compressible else "")
            for suffix in kind.suffixes
        )
        what = f"{kind.name}; split" if kind.splits else kind.name
        refused = "; ".join(kind.refuses)
        rows.append((what, names or "a folder", kind.known_by, kind.columns_from, refused))
    return _table(header, rows)


def _schemes() -> str:
    return _table(("`task.tag_scheme`", "read as BIO"), ((f"`{n}`", r) for n, r in SCHEMES.items()))


def _refusals() -> str:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, DataError) and kind is not DataError
    ]
    header = ("refusal", "when", "of a row, and then called")
    return _table(
        header,
        (
            (f"`{kind.__name__}`", (kind.__doc__ or "").rstrip("."), SORTS.get(kind, "no"))
            for kind in kinds
        ),
    )


def _pictures() -> str:
    forms = _table(
        ("form", "usual names", "known by"),
        ((f.name, ", ".join(f"`{s}`" for s in f.suffixes), f.known_by) for f in PICTURES),
    )
    many, deep = MAX_PIXELS // 10**6, MAX_DEEP_PIXELS // 10**6
    large = f"of more than {many} million pixels ({deep} million of more than 8 bits)"
    strip = f"with one side more than {MAX_RATIO} times the other"
    bounds = (
        f"{large}, {strip}, or a file above {MAX_BYTES >> 20} MiB",
        "refused before it is decoded",
    )
    rules = [("any", *rule) for rule in (*PICTURE_RULES, bounds)]
    rules += [(form.name, *rule) for form in PICTURES for rule in form.rules]
    return forms + _table(("form", "a picture", "is"), rules)


if __name__ == "__main__":
    sys.stdout.write(data_document())
