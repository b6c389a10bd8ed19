"""Test that the equivalents of words of other libraries exist."""

from __future__ import annotations

import inspect
import re

import pytest

import dasklake
from dasklake._api import other_words

#: All sentences, with the words that they answer.
SENTENCES = [
    (word, sentence)
    for words in (
        *other_words._ARGUMENTS.values(),
        other_words._EMPTY,
        other_words._ATTRIBUTES,
        other_words._FUNCTIONS,
    )
    for word, sentence in words.items()
]

OWNERS = {"lake": dasklake.Lake, "view": dasklake.View, "dasklake": dasklake}


@pytest.mark.parametrize(("word", "sentence"), SENTENCES)
def test_names_in_a_sentence_exist(word: str, sentence: str) -> None:
    """A sentence names only attributes and functions that exist."""
    for owner, name in re.findall(r"\b(lake|view|dasklake)\.([a-z_A-Z]+)", sentence):
        assert name in dir(OWNERS[owner]) or name in ("sources", "testing", "torch"), name


@pytest.mark.parametrize("function", ["to_lake", "read_lake", "open"])
def test_words_are_not_arguments_already(function: str) -> None:
    """A function has none of the arguments for which it names an equivalent."""
    names = inspect.signature(getattr(dasklake, function)).parameters
    assert not other_words._ARGUMENTS[function].keys() & names.keys()


def test_a_property_that_fails_is_not_an_unknown_name() -> None:
    """An object without its reader, such as a copy that is being built, does not recurse."""
    with pytest.raises(AttributeError, match="schema"):
        _ = dasklake.View.__new__(dasklake.View).schema
