"""How a record is presented: checks under headings, names for people, and the verdict in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sciresdiff.checks import CHECKS, Check, Range, Result
from sciresdiff.checks.limits import is_failure
from sciresdiff.frame import Kind
from sciresdiff.report.record import Record, format_limit, format_value, is_not_computed, values_by_place

Line = Mapping[str, Any]
"""A result of a record."""

GROUPS: dict[str, tuple[str, ...]] = {
    "Fidelity to the truth": ("fidelity", "perceptual"),
    "Flux": ("flux", "flux_error"),
    "Sources": ("sources", "probes", "empty_sky"),
    "Astrometry and shape": ("shape",),
    "Agreement with the data": ("consistency", "residual"),
    "Resolution": ("resolution", "spectrum", "squirrel"),
    "Uncertainty": ("calibration", "trust"),
}
"""Heading -> files of checks that stand under it, in the order of the report."""
REST = "Other checks"
"""Heading of checks that no group names."""

OWNER: dict[str, str] = {name: check for check, line in CHECKS.items() for name in line.names or (check,)}
"""Name of a result -> the check that makes it."""

SHORT = {
    "psnr": "PSNR", "ssim": "SSIM", "si": "SI", "nrmse": "NRMSE", "lpips": "LPIPS", "fid": "FID",
    "microssim": "MicroSSIM",
    "chi2": "χ²", "fwhm": "FWHM", "frc": "FRC", "ence": "ENCE", "rse": "RSE", "rsp": "RSP", "snr": "SNR", "rmv": "RMV",
    "mpix": "Mpix", "star": "(STAR)", "err": "ERR", "lag1": "lag 1", "68": "68 %", "90": "90 %", "95": "95 %",
}  # fmt: skip
"""Parts of names with a spelling of their own."""
NAMES = {"spurious_per_mpix": "Spurious sources", "negative_per_mpix": "Negative sources"}
"""Names with a spelling of their own."""
UNITS = frozenset({"px", "mag", "sigma"})
"""Parts at the end of names that repeat the unit."""


@dataclass(frozen=True)
class Entry:
    """A check and its results that have a value."""

    name: str
    check: Check
    results: Sequence[Line]


@dataclass(frozen=True)
class Group:
    """Checks under one heading."""

    title: str
    entries: Sequence[Entry]

    @property
    def marks(self) -> list[bool]:
        """Passed or not, of all results with a limit."""
        return [line["passed"] for entry in self.entries for line in entry.results if line["passed"] is not None]


def computed_results(record: Record) -> list[Line]:
    """List the results that were computed.

    A perfect image's infinite PSNR is one of them, though JSON has no number for it.
    """
    return [line for line in record["results"] if not is_not_computed(line)]


@dataclass(frozen=True)
class Absent:
    """A result that was not computed."""

    name: str
    region: str
    title: str


def absent_by_reason(record: Record) -> dict[str, list[Absent]]:
    """Group the results that were not computed by the reason."""
    found: dict[str, list[Absent]] = {}
    for line in record["results"]:
        if is_not_computed(line):
            one = Absent(line["name"], line["region"], display_name(line["name"]))
            found.setdefault(line["meaning"].removeprefix("not computed: "), []).append(one)
    return found


def groups(record: Record) -> list[Group]:
    """Group the computed results by heading; headings without a result are left out."""
    by_check: dict[str, list[Line]] = {}
    for line in computed_results(record):
        by_check.setdefault(OWNER.get(line["name"]) or line["name"], []).append(line)
    found: dict[str, list[Entry]] = {title: [] for title in (*GROUPS, REST)}
    for name, lines in by_check.items():
        found[heading(name)].append(Entry(name, CHECKS[name], lines))
    return [Group(title, entries) for title, entries in found.items() if entries]


def heading(check: str) -> str:
    """Find the heading of a check, by the file that it is in."""
    room = getattr(CHECKS[check].make, "__module__", "").rpartition(".")[2]
    return next((title for title, rooms in GROUPS.items() if room in rooms), REST)


def display_name(name: str) -> str:
    """Spell a result's name for people: ``source_flux_bias_mag`` -> ``Source flux bias``."""
    if name in NAMES:
        return NAMES[name]
    parts = name.split("_")
    while len(parts) > 1 and parts[-1] in UNITS:
        parts.pop()
    words = " ".join(SHORT.get(part, part) for part in parts)
    return words[0].upper() + words[1:] if parts[0] not in SHORT else words


def format_with_unit(value: float | None, unit: str) -> str:
    """Format a value with its unit: ``0.03 mag``, with a true minus sign; None is infinite."""
    if value is None:
        return "infinite"
    return f"{format_value(value)} {unit.replace('1/', 'per ')}".strip().replace("-", "−")


def missed_limits(record: Record, own: Mapping[str, Range], kind: Kind) -> tuple[list[Line], list[Line]]:
    """List the results outside their limits: those that fail the image, and those that are warnings.

    Parameters
    ----------
    record : of an evaluation.
    own : limits of the user, by the result's name.
    kind : whose table of limits holds.
    """
    lines = [line for line in record["results"] if line["passed"] is False]
    bad = [line for line in lines if fails_image(line, own, kind)]
    return bad, [line for line in lines if line not in bad]


def result_of(line: Line) -> Result:
    """Turn a line of a record into a result."""
    low, high = line["limit"] or (None, None)
    return Result(line["name"], line["value"], line["unit"], line["region"], (low, high), line["passed"])


def sentence(record: Record, own: Mapping[str, Range], kind: Kind) -> str:
    """Put the verdict into one sentence.

    Parameters
    ----------
    record, own, kind : as for `missed_limits`.
    """
    bad, mild = missed_limits(record, own, kind)
    judged = sum(line["passed"] is not None for line in record["results"])
    if not judged:
        return "Nothing could be judged: no check that has a limit could be computed, and silence is no pass."
    rest = judged - len(bad) - len(mild)
    if bad:
        more = f"; {_list_names(mild)} as a warning" if mild else ""
        return f"Do not rely on this image as it is: {_list_names(bad)} outside what is accepted{more}. {_rest(rest)}"
    if mild:
        return f"Usable with care: {_list_names(mild)} outside what is accepted, none of them gravely. {_rest(rest)}"
    return f"All {judged} figures that have a limit are within it: nothing contradicts what this image was judged by."


def _rest(n: int) -> str:
    return f"The other {n} judged figures are as they should be." if n > 1 else ""


def _list_names(lines: Sequence[Line], most: int = 4) -> str:
    """``total flux ratio and purity are``, the first few."""
    names = list(dict.fromkeys(_lower(display_name(line["name"])) for line in lines))
    told = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return f"{_join(told)} {'is' if len(names) == 1 else 'are'}"


def _lower(words: str) -> str:
    return words if words[:2].isupper() or words.startswith("χ") else words[0].lower() + words[1:]


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def limit_words(limit: Sequence[float | None] | None) -> str:
    """Format accepted values for print: ``0.5 to 1.15``, ``≥ 0.95`` or nothing."""
    return format_limit(limit).replace("-", "−").replace(">=", "≥").replace("<=", "≤")


def region_words(line: Line) -> str:
    """The region in brackets, where the name does not contain it."""
    region = line["region"]
    return "" if region == "all" or region in line["name"] else f" ({region})"


def baseline_values(record: Record) -> dict[str, dict[tuple[str, str], float | None]]:
    """Index the baselines' values: baseline -> (name, region) -> value."""
    return {name: values_by_place(lines) for name, lines in record["baselines"].items()}


KEY = (
    "psnr",
    "total_flux_ratio",
    "chi2",
    "chi2_sky",
    "spurious_per_mpix",
    "hallucination_fraction",
    "support_fraction",
)
"""Results at the top of a page, where they were computed."""


def key_figures(record: Record) -> list[Line]:
    """Select the first result with a value of every name of `KEY`."""
    found = computed_results(record)
    firsts = (next((line for line in found if line["name"] == name), None) for name in KEY)
    return [line for line in firsts if line is not None and line["value"] is not None]


def fails_image(line: Line, own: Mapping[str, Range], kind: Kind) -> bool:
    """Tell whether a limit is missed that fails the image.

    Parameters
    ----------
    line : of the record.
    own, kind : as for `missed_limits`.
    """
    return line["passed"] is False and is_failure(result_of(line), own, kind)
