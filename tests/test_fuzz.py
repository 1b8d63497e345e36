"Any file and any arguments: success, or our one error. The same cases as in tests/fuzz.py."
import pytest
from fuzz import CHECKS, try_cases


@pytest.mark.parametrize("name", CHECKS)
def test_any_input_ends_well_or_in_one_line(name):
    count = {}
    try_cases(name, 0, 25 if name in ("models", "command lines") else 70, count)
    assert count[name] >= 20
