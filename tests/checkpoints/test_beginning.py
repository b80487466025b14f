"""A checkpoint is not taken in the place of the file that `config.init_from` names, unless its run began from that."""

import pytest
from ml_collections import ConfigDict

from vspw_jax.checkpoints import beginning
from vspw_jax.console.errors import UserError


@pytest.fixture
def files(tmp_path):
    """Two files of weights."""
    paths = {name: tmp_path / f"{name}.pth" for name in "AB"}
    for name, path in paths.items():
        path.write_text(name)
    return paths


def config(init_from, key=""):
    return ConfigDict({"init_from": str(init_from), "init_from_key": key})


def goes_on(workdir, init_from, key=""):
    beginning.check_goes_on(workdir, config(init_from, key), step=40)


def test_a_run_goes_on_with_the_file_that_it_began_from_wherever_it_is_now(tmp_path, files):
    beginning.note(tmp_path, config(files["A"]))
    goes_on(tmp_path, files["A"])
    goes_on(tmp_path, "")
    goes_on(tmp_path, files["A"].rename(tmp_path / "moved.pth"))
    goes_on(tmp_path, files["A"])  # No longer there, and not needed.


def test_another_file_is_refused_and_so_is_one_that_is_missing(tmp_path, files):
    beginning.note(tmp_path, config(files["A"]))
    for init_from, found in ((files["B"], "B.pth would"), (tmp_path / "C.pth", r"C.pth \(no such file\) would")):
        expected = (
            f"a checkpoint of step 40, of a run that began from {files['A']}, so that --config.init_from=.*{found}"
        )
        with pytest.raises(UserError, match=f"{expected} not be read.\n.*init_from=''.*--workdir=DIR"):
            goes_on(tmp_path, init_from)
    files["A"].write_text("other weights under the name of the old ones")
    with pytest.raises(UserError, match="would not be read"):
        goes_on(tmp_path, files["A"])


def test_other_weights_of_the_same_file_are_refused(tmp_path, files):
    beginning.note(tmp_path, config(files["A"], "ema"))
    goes_on(tmp_path, files["A"], "ema")
    for key, said in (("", ""), ("student", " --config.init_from_key=student")):
        with pytest.raises(
            UserError, match=f"A.pth, init_from_key=ema, so that --config.init_from=.*A.pth{said} would"
        ):
            goes_on(tmp_path, files["A"], key)
        with pytest.raises(UserError, match="A.pth' --config.init_from_key='ema'"):
            beginning.check_begins_again(tmp_path, config(files["A"], key))


def test_a_file_is_refused_where_the_run_began_from_none_or_does_not_say(tmp_path, files):
    goes_on(tmp_path, "")
    with pytest.raises(UserError, match="began from something that no began.json names"):
        goes_on(tmp_path, files["A"])
    beginning.note(tmp_path, config(""))
    with pytest.raises(UserError, match="began from weights drawn at random"):
        goes_on(tmp_path, files["A"])


def test_first_steps_are_made_again_from_the_same_beginning(tmp_path, files):
    beginning.check_begins_again(tmp_path, config(""))
    beginning.note(tmp_path, config(files["A"]))
    beginning.check_begins_again(tmp_path, config(files["A"]))
    for init_from in ("", files["B"]):
        with pytest.raises(UserError, match=f"began from {files['A']}, not from .*init_from='{files['A']}'"):
            beginning.check_begins_again(tmp_path, config(init_from))


def test_a_choice_of_weights_without_their_file_is_refused():
    beginning.check(config("A.pth", "ema"))
    beginning.check(config(""))
    with pytest.raises(UserError, match="init_from_key is 'ema' and init_from is empty"):
        beginning.check(config("", "ema"))
