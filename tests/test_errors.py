"""What is said of an error that a person has to mend outside of this program."""

from __future__ import annotations

import errno

import pytest

from gemma4_mlx.errors import permission_hint, reason


@pytest.mark.parametrize(
    ("platform", "number", "told"),
    [("darwin", errno.EPERM, True), ("darwin", errno.EACCES, False), ("linux", errno.EPERM, False)],
)
def test_a_mac_that_keeps_a_folder_from_this_program_is_told_where_to_allow_it(platform, number, told):
    hint = permission_hint(PermissionError(number, "Operation not permitted"), platform)
    assert ("Files and Folders" in hint) == told


def test_other_errors_are_said_as_they_are():
    assert permission_hint(ValueError("x"), "darwin") == ""
    assert reason(FileNotFoundError(errno.ENOENT, "No such file or directory")) == "No such file or directory"
