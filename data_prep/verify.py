"""Checks converted data, and writes what it holds as verification.json and one HTML page with a picture per class.

    python -m data_prep.verify --records=data/vspw/records

Reads every record and finds: other counts than the published ones, frames that are unreadable, duplicated, missing,
out of order or of another size than the rest of their video, ids out of range, ids that are one off, other fingerprints
and class counts than the stored ones. The exit status is 0 when all is well; else it is 2, with one message that lists
the faults. If a release is known to have faults, let them pass with --accept=KIND,... (the word in brackets).
"""

import argparse
import pathlib
from collections.abc import Sequence

from data_prep.verification import checks, html_page
from vspw_jax.buckets import arguments
from vspw_jax.console import ranges
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.files.writable import check_folder


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m data_prep.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--records", required=True, help="folder of the converted data")
    result.add_argument("--output", help="folder for verification.json and verification.html (default RECORDS/report)")
    result.add_argument("--workers", type=int, default=1, help="processes that read (default 1)")
    result.add_argument("--full", action="store_true", help="it is an error if a part of the published set is missing")
    result.add_argument("--accept", default="", metavar="KIND,...", help="kinds of known faults, which may pass")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser().parse_args(argv)
    ranges.check_options(options, {"workers": ranges.COUNT})
    if options.output is None:
        options.output = f"{options.records}/report"
    arguments.on_disk(options, folders=("output",), opened=("records",))
    output = pathlib.Path(options.output)
    check_folder(output, "--output=DIR")
    checked = checks.verify(options.records, options.workers, options.full)
    html_page.write(checked, output)
    accepted = {kind for kind in options.accept.split(",") if kind}
    for note in checked.findings.notes:
        print(note)
    for kind, text in checked.findings.problems:
        if kind in accepted:
            print(f"accepted: [{kind}] {text}")
    print(f"report: {output / 'verification.html'}")
    wrong = [f"  [{kind}] {text}" for kind, text in checked.findings.problems if kind not in accepted]
    if wrong:
        raise UserError(f"{options.records} has faults:\n" + "\n".join(wrong))


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
