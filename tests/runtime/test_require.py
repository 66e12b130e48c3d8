"""Checks of arguments that the tests of their users do not reach."""

from __future__ import annotations

import pytest

from masbook.errors import InvalidValue
from masbook.runtime import require


def test_options_may_be_numbers():
    assert require.one_of("level", 3, range(1, 6)) == 3
    with pytest.raises(InvalidValue, match="level is 7: choose one of 1, 2, 3"):
        require.one_of("level", 7, range(1, 4))


def test_names_are_a_list_of_text_and_the_error_says_how_to_write_one():
    assert require.names("tags", ["a", "b"]) == ("a", "b")
    with pytest.raises(InvalidValue, match=r"tags is 'a': give a list of names, such as \['a'\]"):
        require.names("tags", "a")
    with pytest.raises(InvalidValue, match=r"tags is \[1\]: give a list of names, each of them text"):
        require.names("tags", [1])


def test_a_whole_number_without_a_least_one():
    assert require.whole("priority", -3, least=None) == -3
    with pytest.raises(InvalidValue, match=r"priority is 'high': give a whole number$"):
        require.whole("priority", "high", least=None)


@pytest.mark.parametrize("value", ["", " \n", None, 5, ["a"], b"a"])
def test_text_is_not_empty(value):
    assert require.text("name", "a b") == "a b"
    with pytest.raises(InvalidValue, match=r"name is .*: give some text"):
        require.text("name", value)
