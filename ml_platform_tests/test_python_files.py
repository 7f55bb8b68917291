"""A project's Python files are run as they are now."""

import os
import sys

import pytest

from ml_platform.python_files import load_file


def test_a_change_of_the_same_size_within_a_second_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "rates.py"
    for value in (1, 2):
        path.write_text(f"RATE = {value}\n")
        os.utime(path, (0, 0))
        module = load_file(path, "rates_of_a_test")
        assert (module.RATE, module.__file__) == (value, str(path))
    assert sys.modules[module.__name__] is module


def test_files_of_one_name_are_modules_of_their_own(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "view.py").write_text(f"NAME = {folder!r}")
    first, second = (load_file(tmp_path / folder / "view.py", "views_of_a_test") for folder in ("a", "b"))
    assert (first.NAME, second.NAME) == ("a", "b")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.py"):
        load_file(tmp_path / "absent.py", "x")
