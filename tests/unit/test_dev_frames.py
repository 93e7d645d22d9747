"""Tracebacks for whoever writes tasks: the user's frames stay, those of libraries go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backfill.cli.dev.frames import is_users, shown
from backfill.cli.readers import Count


def _raised(code: str) -> BaseException:
    """What code of a user raises."""
    try:
        exec(compile(code, "/home/ada/shop/jobs.py", "exec"), {"json": json, "Count": Count})
    except BaseException as error:
        return error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
    raise AssertionError("it raised nothing")


def test_frames_of_libraries_go() -> None:
    """An error that a library raises is shown at the user's line that called it."""
    text = shown(_raised("def f():\n    json.loads('(')\nf()"))
    assert [line.strip() for line in text.splitlines() if line.startswith("  File")] == [
        'File "/home/ada/shop/jobs.py", line 3, in <module>',
        'File "/home/ada/shop/jobs.py", line 2, in f',
    ]
    assert text.endswith("json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)")


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    json.loads('(')\nexcept ValueError as error:\n    raise KeyError('x') from error",
        "try:\n    json.loads('(')\nexcept ValueError as error:\n    raise ExceptionGroup('g', [error])",
        "try:\n    json.loads('(')\nexcept ValueError:\n    Count('concurrency')('none')",
    ],
    ids=["cause", "group", "context"],
)
def test_errors_that_belong_to_it_are_cut_too(code: str) -> None:
    """The cause, the context and the members of a group have the user's frames only."""
    text = shown(_raised(code))
    assert "JSONDecodeError" in text
    assert text.count("/home/ada/shop/jobs.py") >= 2
    assert "decoder.py" not in text
    assert "readers.py" not in text


def test_a_syntax_error_shows_its_line() -> None:
    """No frame is the user's, but the error names the file and the line itself."""
    text = shown(_raised("x = ("))
    assert 'File "/home/ada/shop/jobs.py", line 1' in text
    assert "test_dev_frames" not in text


def test_an_error_without_frames_of_the_user_keeps_all() -> None:
    """There is nothing better to show."""
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("(")
    error = caught.value
    assert "decoder.py" in shown(error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None))


def test_whose_files_they_are() -> None:
    """Python's library, installed packages, this package and made-up names are not the user's."""
    assert is_users("/home/ada/shop/jobs.py")
    assert not is_users(json.__file__)
    assert not is_users(pytest.__file__)
    assert not is_users(str(Path("/home/ada/.venv/lib/python3.12/site-packages/x/y.py")))
    assert not is_users("<frozen importlib._bootstrap>")
