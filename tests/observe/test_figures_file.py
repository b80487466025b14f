"""metrics.jsonl: what a power cut left of it stops no run, and what is lost is said."""

import json

import pytest

from tests.inputs import workdirs
from vspw_jax.console.errors import counted
from vspw_jax.observe.figures_file import FiguresFile


def resumed(workdir, content, first_step=3):
    """The steps in metrics.jsonl of a run that goes on after `first_step` and logs the next one."""
    (workdir / "metrics.jsonl").write_bytes(content.encode() if isinstance(content, str) else content)
    file = FiguresFile(workdir, first_step)
    file.scalars(first_step + 1, {"loss": 0.5})
    file.close()
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("content", "steps"), workdirs.DAMAGED_FIGURES.values(), ids=workdirs.DAMAGED_FIGURES.keys())
def test_what_can_be_read_is_kept_and_the_rest_set_aside(tmp_path, capfd, content, steps):
    assert resumed(tmp_path, content) == [*steps, 4]
    said = capfd.readouterr().err
    assert (
        f"metrics.jsonl is damaged: {counted(len(steps), 'line')} of it can be read" in said and "bytes cannot" in said
    )
    data = content.encode() if isinstance(content, str) else content
    assert (tmp_path / "damaged" / "1_metrics.jsonl").read_bytes() == data
    resumed(tmp_path, content)
    assert (tmp_path / "damaged" / "2_metrics.jsonl").read_bytes() == data


def test_lines_that_were_joined_are_all_kept(tmp_path, capfd):
    assert resumed(tmp_path, workdirs.JOINED_FIGURES) == [1, 2, 3, 4]
    assert capfd.readouterr().err == "" and not (tmp_path / "damaged").exists()


def test_what_was_logged_after_the_checkpoint_goes(tmp_path, capfd):
    assert resumed(tmp_path, "\n".join(workdirs.LINES) + "\n", first_step=2) == [1, 2, 3]
    assert capfd.readouterr().err == ""
