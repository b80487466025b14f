"""Numbers of training steps that are written down: a change of any shows."""

import json
import math
import pathlib

import pytest

GOLDEN = pathlib.Path(__file__).with_name("golden_steps.json")
CHANGED = """{name}: the training step has other numbers than it had:
{parted}
If your change was not meant to change what is trained, look for what it did. If it was, write the new numbers down,
look at the difference, and say in the commit's message why they changed:
  python -m pytest -n0 {tests} --write-golden
  git diff {file}"""


@pytest.fixture
def golden(request):
    """golden(name, numbers): they are those of golden_steps.json. With --write-golden they are put there."""

    def check(name, numbers, tolerance=1e-4):
        known = json.loads(GOLDEN.read_text())
        if request.config.getoption("write_golden"):
            known[name] = {term: float(f"{value:.7g}") for term, value in sorted(numbers.items())}
            GOLDEN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            return
        wanted = known.get(name, {})
        parted = [
            f"  {term}: {numbers.get(term)} where {GOLDEN.name} has {wanted.get(term)}"
            for term in sorted(numbers.keys() | wanted.keys())
            if numbers.get(term, math.nan) != pytest.approx(wanted.get(term, math.nan), rel=tolerance, abs=1e-6)
        ]
        if parted:
            tests, file = (path.relative_to(request.config.rootpath) for path in (request.path, GOLDEN))
            pytest.fail(CHANGED.format(name=name, parted="\n".join(parted), tests=tests, file=file), pytrace=False)

    return check
