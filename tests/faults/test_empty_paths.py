"""An option of a path that is left empty does not mean the folder that one is in."""

import importlib

import pytest

from data_prep.verification import html_page
from vspw_jax.console.errors import UserError

CONVERTED = ("source", "output")
PATHS = {
    "data_prep.vspw": CONVERTED,
    "data_prep.ade20k": CONVERTED,
    "data_prep.coco_stuff": CONVERTED,
    "data_prep.cityscapes": (*CONVERTED, "annotations"),
    "data_prep.pascal_voc": (*CONVERTED, "sbd"),
    "data_prep.folder": (*CONVERTED, "classes"),
    "data_prep.generate": ("output",),
    "data_prep.verify": ("records", "output"),
    "data_prep.pseudo_labels": ("records", "predictions", "output", "scores"),
    "vspw_jax.metrics.__main__": ("predictions", "data", "flow", "output", "report"),
    "vspw_jax.submission": ("predictions", "check", "data", "output"),
    "vspw_jax.ensemble": ("scores", "groups", "records", "output"),
}
"""Of each command the options that name a file or folder."""


@pytest.mark.parametrize(("module", "option"), [(module, name) for module, names in PATHS.items() for name in names])
def test_an_empty_path_is_refused_before_anything_is_read_or_written(module, option, tmp_path, monkeypatch):
    command = importlib.import_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(html_page, "write", lambda *_: pytest.fail("verify wrote"))
    needed = {action.option_strings[0] for action in command.parser()._actions if action.required}
    if module == "vspw_jax.submission" and option != "check":  # One of the two.
        needed.add("--predictions")
    with pytest.raises(UserError) as raised:
        command.main([*(f"{flag}=there" for flag in sorted(needed - {f"--{option}"})), f"--{option}="])
    assert str(raised.value) == f"--{option} is empty: expected a path."
    assert not list(tmp_path.iterdir())
