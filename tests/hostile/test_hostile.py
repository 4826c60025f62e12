"""Every case of bad input: see the tables beside."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.hostile import (
    archives,
    conversions,
    line_files,
    odd_data,
    outputs,
    pickles,
    records,
    servers,
    side_files,
    stores,
    strange_files,
    tensor_files,
    text_files,
    value_files,
)
from tests.hostile.harness import Case, check_case

TABLES = [
    *(archives, conversions, line_files, odd_data, outputs, pickles, records, servers),
    *(side_files, stores, strange_files, tensor_files, text_files, value_files),
]
CASES: list[Case] = [case for table in TABLES for case in table.CASES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_input(case: Case, capfd):
    with TemporaryDirectory() as folder:  # gone at once: there are many of them
        check_case(case, Path(folder), capfd.readouterr)


def test_the_tables_are_wide_and_not_repetitive():
    assert len({str(case) for case in CASES}) == len(CASES) >= 300
    assert max(Counter((case.reader, case.mutation) for case in CASES).values()) <= 10
