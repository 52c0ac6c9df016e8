"""Whatever is asked of a partition: every row exactly once, every unit in one place."""

import json
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fmfl_secure.data import partition_file, read_table
from fmfl_secure.data.errors import PartitionError


# Every example syncs up to seven files to disk, which takes as long as the disk likes.
@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.text(max_size=5)),
        min_size=1,
        max_size=40,
    ),
    sites=st.integers(1, 4),
    by=st.sampled_from(["iid", "dirichlet:0.3", "dirichlet:50"]),
    by_unit=st.booleans(),
    holdout=st.sampled_from([0.0, 0.2]),
    tune=st.sampled_from([0.0, 0.3]),
    limit=st.none() | st.integers(1, 50),
    seed=st.integers(0, 2**64),
)
def test_every_row_lands_exactly_once(rows, sites, by, by_unit, holdout, tune, limit, seed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        lines = [
            json.dumps({"label": label, "owner": owner, "text": text, "place": place})
            for place, (label, owner, text) in enumerate(rows)
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
        out = Path(folder) / "out"
        try:
            summary = partition_file(
                path,
                sites,
                out,
                by=by,
                label_column="label",
                holdout=holdout,
                tune=tune,
                limit=limit,
                seed=seed,
                unit_column="owner" if by_unit else None,
            )
        except PartitionError:
            assume(False)
        assert len(summary.sites) == sites
        assert (summary.holdout is not None) == (holdout > 0)
        assert (summary.tune is not None) == (tune > 0)
        written = [
            (out / part.name).read_text(encoding="utf-8").splitlines() for part in summary.files
        ]
        assert [len(part) for part in written] == [part.rows for part in summary.files]
        assert all(written)
        landed = Counter(line for part in written for line in part)
        assert max(landed.values()) == 1
        assert landed.keys() <= set(lines)
        if limit is None:
            assert len(landed) == len(lines)
        elif by_unit:
            assert len(landed) <= limit
        else:
            assert len(landed) == min(limit, len(lines))
        if by_unit:
            owners = [
                set(read_table(out / part.name).column("owner").to_pylist())
                for part in summary.files
            ]
            assert len(set().union(*owners)) == sum(map(len, owners))
        elif by == "iid":
            sizes = [part.rows for part in summary.sites]
            assert max(sizes) - min(sizes) <= 1
