"""The log of inputs: what it tries, that it says what a command says, and that the page in docs/ has all of it."""

import pytest

from benchmarks.inputs_log import __main__ as inputs_log
from benchmarks.inputs_log import trial
from vspw_jax.console.errors import UserError

SECTIONS = inputs_log.SECTIONS


def test_every_kind_has_cases_or_says_why_not():
    for section in SECTIONS:
        assert all(section.cases.values()) and section.not_tried.keys() <= section.cases.keys()


def test_the_page_has_every_kind_and_every_command(request):
    page = (request.config.rootpath / "docs" / "inputs_log.md").read_text()
    for section in SECTIONS:
        assert f"\n## {section.title}\n" in page
        for kind, cases in section.cases.items():
            part = page.partition(f"\n### {kind}\n")[2].partition("\n### ")[0]
            assert kind not in section.not_tried or section.not_tried[kind] in part
            for case in cases:
                entry = part.partition(f"\n**{case.what}**\n")[2].partition("\n**")[0]
                assert all(f"\n$ {command}\n" in entry for command in case.commands.splitlines()), case.what


def test_no_command_of_the_page_ends_in_a_traceback(request):
    page = (request.config.rootpath / "docs" / "inputs_log.md").read_text()
    statuses = {line for line in page.splitlines() if line.startswith("[status ")}
    assert "Traceback" not in page and statuses <= {f"[status {number}]" for number in (0, 2, 130, 141)}


def of_kind(page, kind):
    """The part of a kind."""
    return page.partition(f"\n### {kind}\n")[2].partition("\n#")[0]


def test_cases_are_tried_and_their_words_are_the_commands(tmp_path, capfd, request):
    """One that is refused and one that is predicted, in the folder all cases begin with; docs/ has the same words."""
    inputs_log.main(["--only=--input=", f"--output={tmp_path / 'log.md'}"])
    page = (tmp_path / "log.md").read_text()
    refused, predicted = page.partition("### --input=\n")[2], page.partition("### --input=.\n")[2]
    assert "--input=\nError: --input is empty: expected a path." in refused and "[status 2]" in refused
    assert "Predicted video:      runs/a/predictions/" in predicted and "[status 0]" in predicted
    assert str(tmp_path) not in page and "/tmp" not in page
    kept = (request.config.rootpath / "docs" / "inputs_log.md").read_text()
    assert all(of_kind(page, kind).strip() == of_kind(kept, kind).strip() for kind in ("--input=", "--input=."))
    with pytest.raises(UserError, match="no kind and no case"):
        inputs_log.main(["--only=no such case"])


def test_words_are_without_progress_and_paths_of_this_machine(tmp_path):
    bar = "training:  50% |######      | 1/2 steps [00:03, ETA 00:03]\r"
    text = f"{bar}\n{tmp_path}/out is in use by process 12 on host x.y, since 2026-01-02 03:04:05 +0000:\n  own\n"
    words = trial.cleaned(text, tmp_path)
    assert words == "out is in use by process 71 on host h, since 2026-11-28 10:00:00 +0000:\n  own"
    lines = trial.cleaned("\n".join(map(str, range(100))), tmp_path).splitlines()
    assert len(lines) == trial.MOST_LINES and (lines[0], lines[-1]) == ("0", "99") and "lines ..." in lines[7]


def test_a_shell_runs_the_other_commands(tmp_path):
    folder = tmp_path / "case"
    folder.mkdir()
    assert trial.Programs().run("echo $PWD; false | head -n 1", folder) == (1, ".")
