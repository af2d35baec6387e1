"""The list of planted faults is that of the code and of the tests as they are."""

import ast

import pytest

from tools.mutants import MUTANTS, ROOT


@pytest.mark.slow  # not in the copies with a fault, where it would find it
def test_the_list_of_faults_is_not_stale():
    stale = [x.name for x in MUTANTS if (ROOT / x.file).read_text().count(x.old) != 1]
    assert not stale, "the script would stop at these"


def test_the_tests_that_faults_name_exist():
    """Down to whether they have cases; pytest would not start with one that is not there."""
    for name in {name for mutant in MUTANTS for name in mutant.tests}:
        path, _, function = name.partition("::")
        function, *case = function.split("[")
        tests = [x for x in ast.parse((ROOT / path).read_text()).body if getattr(x, "name", "") == function]
        assert tests, name
        assert not case or any("parametrize" in ast.unparse(x) for x in tests[0].decorator_list), name
