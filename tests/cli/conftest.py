"""What tests of the commands share.

Fixtures:
    empty_folder: The current folder of the test, with nothing in it.
    assert_refused: Fails unless arguments end as bad input in one line that holds a text, with
        nothing written.
"""

import pytest

from parity import cli


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def assert_refused(empty_folder, capsys):
    def check(arguments, expected):
        code = cli.run(arguments)

        error = capsys.readouterr().err
        assert code == 2
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert expected in error
        assert list(empty_folder.iterdir()) == []

    return check
