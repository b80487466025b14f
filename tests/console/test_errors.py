"""What a message says when a name in a config is unknown."""

import pytest

from vspw_jax.console.errors import UserError, choose, counted


@pytest.mark.parametrize(
    ("name", "hint"),
    [("adamv", " Did you mean 'adamw'?"), ("AdamW", " Did you mean 'adamw'?"), ("momentum", ""), (3, ""), (None, "")],
)
def test_an_unknown_name_gets_all_that_there_are_and_the_nearest(name, hint):
    with pytest.raises(UserError) as raised:
        choose({"sgd": 1, "adamw": 2}, name, "optimizer")
    assert str(raised.value) == f"optimizer is {name!r}: expected one of adamw, sgd.{hint}"


def test_one_is_no_plural():
    assert [counted(number, "bad frame") for number in range(3)] == [
        "0 bad frames",
        "1 bad frame",
        "2 bad frames",
    ]
