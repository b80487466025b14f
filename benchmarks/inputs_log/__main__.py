"""Makes bad and odd inputs, runs the commands on them, and writes what they say: docs/inputs_log.md.

    python -m benchmarks.inputs_log --output=docs/inputs_log.md
    python -m benchmarks.inputs_log --only=NaN              those whose kind or name holds that, printed

The inputs are of the generators in tests/inputs/. Takes about 10 minutes of one core.
"""

import argparse
import contextlib
import pathlib
import shutil
import signal
import tempfile
from collections.abc import Sequence

from benchmarks.inputs_log import checkpoints, misleading, page, silent, stock, tracebacks
from benchmarks.inputs_log.case import Case, Section
from benchmarks.inputs_log.trial import Ended, Programs
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.console.progress import progress
from vspw_jax.files.whole_files import whole_file

SECTIONS = (silent.SECTION, tracebacks.SECTION, misleading.SECTION, checkpoints.SECTION)


def tried(case: Case, kept: pathlib.Path, programs: Programs) -> list[tuple[str, Ended]]:
    """A case's commands, run in turn in a folder of its own beside the stock, and what came of each.

    Raises:
      RuntimeError: a hostile file has run.
    """
    folder = stock.copied(kept, kept.with_name("case"))
    made = case.make(folder)
    held = made if isinstance(made, contextlib.AbstractContextManager) else contextlib.nullcontext()
    with held:
        result = [(command, programs.run(command, folder)) for command in case.commands.splitlines()]
    if (folder / "PWNED").exists():
        raise RuntimeError(f"{case.what}: the file ran")
    shutil.rmtree(folder)
    return result


def chosen(section: Section, only: str) -> dict[str, list[Case]]:
    """The cases whose kind or name holds a text."""
    found = {kind: [c for c in cases if only in f"{kind} {c.what}"] for kind, cases in section.cases.items()}
    return {kind: cases for kind, cases in found.items() if cases}


def log(only: str, folder: pathlib.Path) -> str:
    """The page, of all cases or of some, tried in an empty folder."""
    found = [(section, chosen(section, only)) for section in SECTIONS]
    count = sum(len(cases) for _, kinds in found for cases in kinds.values())
    if not count:
        raise UserError(f"--only={only}: no kind and no case is called so.")
    programs = Programs()
    stock.make(folder / "stock", programs)
    bar = progress(None, "trying", "case", total=count)
    sections = []
    for section, kinds in found:
        results: page.Tried = {}
        for kind, cases in kinds.items():
            results[kind] = []
            for case in cases:
                results[kind].append((case, tried(case, folder / "stock", programs)))
                bar.update()
        sections.append((section, results))
    bar.close()
    return page.page((section, results) for section, results in sections if results)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.inputs_log",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--only", default="", metavar="TEXT", help="cases whose kind or name holds this")
    result.add_argument("--output", metavar="X.md", help="the page to write; without it, it is printed")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser().parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # In a script's background it would be ignored.
    with tempfile.TemporaryDirectory() as folder:
        text = log(options.only, pathlib.Path(folder).resolve())
    if not options.output:
        print(text)
        return
    with whole_file(pathlib.Path(options.output)) as partial:
        partial.write_text(text)


if __name__ == "__main__":
    run_program(main)
