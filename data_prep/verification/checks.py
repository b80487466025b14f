"""What is checked of converted data, and what the checks found.

Shapes: V = 256 source values of a mask.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.verification import hypotheses, label_shift
from data_prep.verification.scan import SplitScan, readers, scan
from vspw_jax.classes import label_maps
from vspw_jax.console.errors import UserError
from vspw_jax.data import records
from vspw_jax.files import frame_names

LISTED = 5
"""How many cases of one fault are named."""

Copy = tuple[str, int, str]
"""One of several equal images: its split, its record's number there, and "video/frame"."""


@dataclasses.dataclass
class Findings:
    """What the checks found.

    Attributes:
      problems: (kind, text) of each fault; --accept takes the kinds.
      notes: what is worth saying, but no fault.
    """

    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def problem(self, kind: str, text: str) -> None:
        """Adds a fault."""
        self.problems.append((kind, text))


def _some(cases: Iterable[object]) -> str:
    cases = list(cases)
    more = f"; and {len(cases) - LISTED} more" if len(cases) > LISTED else ""
    return "; ".join(map(str, cases[:LISTED])) + more


def check_counts(findings: Findings, dataset: str, split: str, found: SplitScan, full: bool) -> None:
    """Compares numbers of videos and frames with the published ones; other numbers are a fault only if `full`."""
    counts, sizes = (len(found.names), found.frames), hypotheses.PUBLISHED.get(dataset, {}).get(split, ())
    of_kind = [size for size in sizes if (size[0] < size[1]) == (counts[0] < counts[1])]  # Of videos, or of images.
    published = counts if counts in sizes else next(iter([*of_kind, *sizes]), None)
    if published is None:
        findings.notes.append(f"{split}: {counts[0]:,} videos, {counts[1]:,} frames; no published count")
        return
    # An image counts as a video.
    units = ("videos", "frames") if published[0] != published[1] else ("images",)
    parts = [f"{n:,} of {of:,} {unit}" for n, of, unit in zip(counts, published, units, strict=False)]
    if published == counts:
        findings.notes.append(f"{split}: {', '.join(parts)}, as published")
    elif full:
        findings.problem("counts", f"{split}: {', '.join(parts)}; --full asks for all")
    else:
        findings.notes.append(f"{split}: {', '.join(parts)}: a subset, or another set, of {dataset}")


def check_frames(findings: Findings, split: str, found: SplitScan, full: bool) -> None:
    """Finds frames that cannot be read, names that occur twice, another order or size within a video, and gaps.

    Releases have gaps, so these are a fault only if `full`. Frames without masks are not scored: they may change size.
    """
    if found.bad:
        findings.problem("unreadable", f"{split}: {len(found.bad)} unusable frames: {_some(found.bad)}")
    twice = [
        f"{video}/{name}"
        for video, names in found.names.items()
        for name, count in collections.Counter(names).items()
        if count > 1
    ]
    if twice:
        findings.problem("names", f"{split}: {len(twice)} frame names occur twice: {_some(twice)}")
    unordered = [video for video, names in found.names.items() if names != sorted(names, key=frame_names.natural)]
    if unordered:
        findings.problem(
            "order",
            f"{split}: {len(unordered)} videos are not in the order of their frames' numbers: "
            f"{_some(unordered)}. Convert again",
        )
    for has_mask, cases in found.resized.items():
        if cases:
            text = f"{split}: {len(cases)} frames have another size than the first of their video: {_some(cases)}"
            findings.problem("sizes", text) if has_mask else findings.notes.append(text)
    gaps = [(video, len(names[0]), gap) for video, names in found.names.items() for gap in missing_numbers(names)]
    if gaps:
        missing = [f"{video}/{gap[0]:0{width}d}" + (" and on" if len(gap) > 1 else "") for video, width, gap in gaps]
        text = f"{split}: {sum(len(gap) for *_, gap in gaps)} frames missing within videos: {_some(missing)}"
        findings.problem("gaps", text) if full else findings.notes.append(text)


def missing_numbers(names: Sequence[str]) -> list[range]:
    """Ranges of numbers that are missing in a video's frame names; none if most steps between names differ."""
    if len(names) < 3 or not all(name.isdigit() for name in names):
        return []
    numbers = sorted({int(name) for name in names})
    (step, count), *_ = collections.Counter(np.diff(numbers).tolist()).most_common(1) or [(1, 0)]
    if count * 2 < len(numbers) - 1:
        return []
    gaps = (range(first + step, last, step) for first, last in zip(numbers, numbers[1:], strict=False))
    return [gap for gap in gaps if gap]


def check_duplicates(findings: Findings, scans: Mapping[str, SplitScan]) -> None:
    """Finds JPEGs that are equal byte for byte: a fault, unless they are successive frames of a still video."""
    owners: dict[str, list[Copy]] = collections.defaultdict(list)
    for split, found in scans.items():
        for digest, cases in found.by_image.items():
            owners[digest] += [(split, *case) for case in cases]
    groups = [group for group in owners.values() if len(group) > 1]
    kinds: dict[str, list[list[Copy]]] = collections.defaultdict(list)
    for group in groups:
        kinds[_kind_of_copies(group)].append(group)
    for kind, title in (("leaks", "are in two splits"), ("duplicates", "occur more than once")):
        if kinds[kind]:
            text = f"{len(kinds[kind])} images {title}, byte for byte: {_some(map(_equal, kinds[kind]))}"
            findings.problem(kind, text)
    still = kinds["still"]
    if still:
        findings.notes.append(f"{len(still)} images repeat in a video that stands still: {_some(map(_equal, still))}")


def _kind_of_copies(group: Sequence[Copy]) -> str:
    """Equal images of two splits are "leaks", successive frames of one video "still", others "duplicates"."""
    if len({split for split, _, _ in group}) > 1:
        return "leaks"
    videos = {where.rsplit("/", 1)[0] for _, _, where in group}
    numbers = sorted(number for _, number, _ in group)
    still = len(videos) == 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
    return "still" if still else "duplicates"


def _equal(group: Sequence[Copy]) -> str:
    return " = ".join(f"{split} {where}" for split, _, where in group)


def check_ids(findings: Findings, split: str, found: SplitScan, numbering: label_shift.Numbering) -> None:
    """Finds values that the numbering does not have."""
    wrong = [v for v in found.first_seen if numbering.classes_V[v] == label_shift.IMPOSSIBLE]
    if wrong:
        cases = (f"{v} in {found.frames_V[v]} frames, first {found.first_seen[v]}" for v in sorted(wrong))
        findings.problem("ids", f"{split}: values that {numbering.title} does not have: {_some(cases)}")


def check_shift(
    findings: Findings,
    scans: Mapping[str, SplitScan],
    expected: label_shift.Numbering,
    others: Sequence[label_shift.Numbering],
) -> label_shift.Verdict | None:
    """Finds ids that are one off or of another numbering, in each split and in all together; the verdict on all."""
    together = sum((found.sightings for found in scans.values()), label_shift.Sightings())
    if not together.videos or not others:
        return None
    verdict = label_shift.judge(together, expected, others)
    by_split = {split: label_shift.judge(found.sightings, expected, others) for split, found in scans.items()}
    wrong = {split: v for split, v in by_split.items() if v.is_clear and v.best is not expected}
    if verdict.is_clear and verdict.best is not expected and all(v.best is verdict.best for v in wrong.values()):
        wrong = {", ".join(split for split, found in scans.items() if found.masks): verdict}
    for splits, other in wrong.items():
        findings.problem(
            "shift",
            f"{splits}: the masks look like {other.best.title}: expected {expected.title} (ahead by {other.lead:.1f} "
            f"nats). {'; '.join(other.reasons)}. Mend the masks and convert again",
        )
    if verdict.is_nonsense:
        findings.notes.append(
            f"no numbering explains how often, how large and how high the classes are seen (the best is "
            f"{verdict.best.title}, at {verdict.fit:.1f} nats against any classes): look at the pictures"
        )
    elif not verdict.is_clear:
        kinds = int((together.seen_in_V[expected.classes_V >= 0] > 0).sum())
        findings.notes.append(
            f"{together.videos} videos with {kinds} classes do not show whether ids are one off (the best numbering is "
            f"{verdict.best.title}, ahead by {verdict.lead:.1f} of {label_shift.MARGIN:.0f} nats): look at the pictures"
        )
    elif not wrong:
        findings.notes.append(f"ids are {expected.title} (ahead of others by {verdict.lead:.1f} nats)")
    return verdict


def check_stored(findings: Findings, split: str, found: SplitScan, metadata: Mapping[str, Any]) -> None:
    """Compares the metadata's fingerprint and index, and the class counts beside the shards, with the records."""
    stored, computed = metadata["fingerprint"].get(split), found.fingerprint
    if stored != computed:
        findings.problem("fingerprint", f"{split}: the records' fingerprint is {computed}, the metadata says {stored}")
    if [[video, len(names)] for video, names in found.names.items()] != metadata["videos"][split]:
        findings.problem("index", f"{split}: the metadata's index of videos is not that of the records")
    if found.wrong_rows:
        text = f"{split}: stored class counts of {len(found.wrong_rows)} frames differ: {_some(found.wrong_rows)}"
        findings.problem("class_pixels", text)


def pseudo_labels(metadata: Mapping[str, Any]) -> dict[str, str]:
    """In words, by split, which labels of records are predictions; of the metadata alone, whatever can be read."""
    return {
        split: records.predictions_note(mark, sum(count for _, count in metadata["videos"].get(split, [])))
        for split, mark in metadata.get(records.PSEUDO_LABELS, {}).items()
    }


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was checked and found.

    Attributes:
      path, dataset: of the converted data.
      scans: by split; a split that cannot be read has none.
      expected: the numbering that the masks should have.
      verdict: whether they have it; None if there are no masks.
    """

    path: str
    dataset: str
    findings: Findings
    scans: dict[str, SplitScan]
    expected: label_shift.Numbering
    verdict: label_shift.Verdict | None


def verify(path: pathlib.Path | str, workers: int = 1, full: bool = False) -> Verification:
    """Checks converted data.

    Args:
      path: folder of the converted data, as --config.data.records takes it.
      workers: processes that read.
      full: whether data that is not the whole published set is an error.

    Raises:
      UserError: no converted data at `path`.
    """
    folder, metadata = records.find(path), records.read_metadata(path)
    dataset, findings, scans = metadata["dataset"], Findings(), dict[str, SplitScan]()
    expected, others = hypotheses.of(label_maps.from_metadata(metadata))
    with readers(workers) as run:
        for split in metadata["videos"]:
            try:
                scans[split] = scan(folder, split, run)
            except UserError as error:
                findings.problem("unreadable", f"{split}: {error}")
    findings.notes += [f"{split}: {note}, not truth" for split, note in pseudo_labels(metadata).items()]
    for split, found in scans.items():
        check_counts(findings, dataset, split, found, full)
        check_frames(findings, split, found, full)
        check_ids(findings, split, found, expected)
        check_stored(findings, split, found, metadata)
    check_duplicates(findings, scans)
    return Verification(str(path), dataset, findings, scans, expected, check_shift(findings, scans, expected, others))
