"""The package stays small enough to be read. The aims are 2,900 lines for the library and 13,500 in all."""

from size import LIBRARY, longest, rooms


def test_what_a_learner_reads_does_not_grow():
    assert rooms()[LIBRARY] < 2_900


def test_the_package_does_not_grow():
    assert sum(rooms().values()) <= 19_850


def test_no_file_is_longer_than_300_lines():
    assert [path for path, count in longest(1000) if count > 300] == []
