import errno
import os

import pytest

from wsolkit.errors import LONGEST, CheckpointError, DataError, reason, turned_into


def fail(error: Exception, *caught: type[Exception]) -> None:
    with turned_into(DataError, "Cannot read x", "Copy it again.", *caught):
        raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("two\n  lines."), "two lines"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x"), os.strerror(errno.ENOSPC)),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "other"), f"{os.strerror(errno.ENOSPC)}: other"),
        (KeyError("cells"), "KeyError: 'cells'"),
        (AttributeError("cells"), "AttributeError: cells"),
        (RuntimeError(), "RuntimeError"),
        (ValueError("long " * 200), "long " * 118 + "long [...]"),
    ],
)
def test_another_librarys_error_becomes_one_of_the_kit(error, said):
    assert reason(error, "Cannot read x") == said
    assert len(said) <= LONGEST
    with pytest.raises(DataError) as caught:
        fail(error)
    assert str(caught.value) == f"Cannot read x: {said}. Copy it again."
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [CheckpointError("as it is"), KeyError("not named"), KeyboardInterrupt()])
def test_errors_of_the_kit_and_those_not_named_pass(error):
    with pytest.raises(type(error)) as caught:
        fail(error, OSError)
    assert caught.value is error
