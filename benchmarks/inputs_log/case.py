"""A bad or odd input, and the commands that meet it."""

import pathlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

MAIN = "python -m vspw_jax.main --config=small.py"
TRAIN = f"{MAIN} --workdir=runs/b"
EVALUATE = f"{MAIN} --workdir=runs/a --mode=evaluate"
PREDICT = f"{MAIN} --workdir=runs/a --mode=predict --output=out --input="
CONVERT = "python -m data_prep.vspw --source=video --output=new"
METRICS = "python -m vspw_jax.metrics --predictions=masks --data=video --flow=none --output=scores.json"

NOTHING = lambda folder: None


class Case(NamedTuple):
    """What is odd, the commands (a line each), and what puts the input into the case's folder.

    `make` may give a context, which is held while the commands run.
    """

    what: str
    commands: str
    make: Callable[[pathlib.Path], AbstractContextManager | None | object] = NOTHING


class Section(NamedTuple):
    """Cases by kind; of kinds of which not all is tried, the reason."""

    title: str
    cases: dict[str, tuple[Case, ...]]
    not_tried: dict[str, str] = {}


def of_flags(*flags: str) -> tuple[Case, ...]:
    """A start of training with each flag."""
    return tuple(Case(flag, f"{TRAIN} {flag}") for flag in flags)
