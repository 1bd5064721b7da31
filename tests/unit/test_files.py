"""Small text files: each line as it is, each file whole or not there."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.errors import DataError
from mt.files import read_lines, write_whole

line = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])).filter(lambda text: text[-1:] != "\r")


@given(st.lists(line).filter(lambda lines: not "".join(lines[:1]).startswith("\ufeff")))
def test_lines_written_are_the_lines_read(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("files") / "lines.txt"
    write_whole(path, "".join(f"{text}\n" for text in lines))
    assert read_lines(path) == lines


def test_windows_files_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo \xe2\x80\xa8\r\n\r\nfour")
    assert read_lines(path) == ["one", "two \u2028", "", "four"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: no such file"):
        read_lines(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_lines(tmp_path)
    (tmp_path / "latin").write_bytes(b"one\ntwo\ncaf\xe9\n")
    with pytest.raises(DataError, match="latin:3: not UTF-8 text"):
        read_lines(tmp_path / "latin")


def test_a_file_that_cannot_be_written_keeps_its_content_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "there"
    (path / "kept").mkdir(parents=True)
    with pytest.raises(DataError, match="there: cannot be written: Is a directory"):
        write_whole(path, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
