"""``make judges``: which check catches which planted defect, at which strength, and how often a clean image is flagged.

    python docs/benchmarks/judges.py [--only defects,alarms,trust] [--frames N] [--clean N] [--print]

Clean frames are simulated scenes, degraded with noise and restored by the shipped models.  Nine defects are planted
into them at the strengths of `judges_defects`, each of which has one at which it must be caught; the checks are run
with the default limits, with and without the truth.  A check has caught a defect when a result leaves its limits that
was within them on the clean image.  The tables go into docs/explanation/judges.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from judges_defects import DEFECTS, FIELDS, SIDE, Setting, clean, planted

from sciresdiff import checks
from sciresdiff.checks.evidence import Evidence
from sciresdiff.frame import Kind

PAGE = Path(__file__).parents[1] / "explanation" / "judges.md"
Missed = dict[str, set[str]]
"""With and without truth -> checks whose limit was missed, by name and region."""


def missed(evidence: Evidence) -> Missed:
    """Names of the results that miss a limit, with the truth and without it."""
    blind = replace(evidence, truth=None, shared={})
    return {how: {f"{r.name}/{r.region}" for r in checks.check(one) if r.passed is False}
            for how, one in (("truth", evidence), ("blind", blind))}  # fmt: skip


def caught(before: Missed, after: Missed) -> Missed:
    """Checks that miss a limit which they kept on the clean image."""
    return {how: {name.split("/")[0] for name in after[how] - before[how]} for how in after}


def weakest(kind: Kind, bases: list[Evidence]) -> dict[str, dict[str, dict[str, float]]]:
    """Defect -> with or without truth -> check -> weakest strength from which on it catches it on most frames."""
    frames, before = len(bases), [missed(base) for base in bases]
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, plan in DEFECTS.items():
        table[name] = {"truth": {}, "blind": {}}
        for strength in plan.strengths:
            found = [caught(b, missed(planted(e, name, strength))) for b, e in zip(before, bases, strict=True)]
            for how, row in table[name].items():
                counts = Counter(check for one in found for check in one[how])
                often = {check for check, n in counts.items() if 2 * n > frames}
                for check in [check for check in row if check not in often]:
                    del row[check]
                row.update({check: row.get(check, strength) for check in often})
                if strength == plan.must and not all(one[how] for one in found):
                    row[MISSED] = strength
        print(kind, name, table[name], file=sys.stderr, flush=True)
    return table


MISSED = "(not caught on every frame at the stated strength)"


def cells(row: dict[str, float]) -> str:
    """Checks by the weakest strength that they catch, strongest judge first."""
    named = sorted(row.items(), key=lambda item: (item[1], item[0]))
    return ", ".join(f"{check} {at:g}" for check, at in named) or "none"


def defect_table(frames: int) -> str:
    """The tables of both fields."""
    parts = []
    for kind, (model, scene) in FIELDS.items():
        bases = [clean(kind, seed) for seed in range(frames)]
        found = weakest(kind, bases)
        lines = [
            f"{kind}, {frames} frames (`{scene}`, {SIDE} x {SIDE} px, `{model}`)", "",
            "| defect | strengths | must be caught at | caught with a truth, from | caught without a truth, from |",
            "|---|---|---|---|---|",
        ]  # fmt: skip
        for name, plan in DEFECTS.items():
            strengths = ", ".join(f"{s:g}" for s in plan.strengths)
            lines.append(f"| {name} | {strengths} {plan.unit} | {plan.must:g} | {cells(found[name]['truth'])} | "
                         f"{cells(found[name]['blind'])} |")  # fmt: skip
        parts.append("\n".join([*lines, "", blind_spots(found, bases)]))
    return "\n\n".join(parts)


def blind_spots(found: dict[str, dict[str, dict[str, float]]], bases: list[Evidence]) -> str:
    """List the defects that each check missed, and the checks with a limit that caught none."""
    from sciresdiff.checks.limits import LIMITS

    clean_ones = [result for base in bases for result in checks.check(base)]
    measured = {r.name for r in clean_ones if r.passed is not None}
    already = {r.name for r in clean_ones if r.passed is False}
    lines = ["Defects that each check missed at every strength tried, with a truth:", ""]
    seen = {name: [d for d in DEFECTS if name in found[d]["truth"]] for name in LIMITS[bases[0].kind]}
    for name, saw in seen.items():
        if saw:
            lines.append(f"- `{name}`: {', '.join(d for d in DEFECTS if d not in saw) or 'nothing'}")
    idle = [name for name, saw in seen.items() if not saw]
    groups = {
        "none of the nine is caught by": [n for n in idle if n in measured and n not in already],
        "outside the limits on a clean frame already": [n for n in idle if n in already],
        "not computed, or without a limit, on these frames": [n for n in idle if n not in measured],
    }
    return "\n".join(
        [*lines, *(f"- {what}: {', '.join(f'`{n}`' for n in names)}" for what, names in groups.items() if names)]
    )


def setting_of(kind: Kind, rng: np.random.Generator) -> Setting:
    """A frame as it may be met: any scene of the field, a kernel and noise in the middle of the models' range."""
    width, noise, slope = (float(np.exp(rng.uniform(*np.log(r)))) for r in ((0.4, 0.8), (0.2, 3.0), (0.003, 0.3)))
    return Setting(kind, noise, width, slope, float(rng.uniform(0, 100)))


def alarms(count: int) -> str:
    """Verdicts on clean frames, and which limits were missed."""
    verdicts: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for n in range(count):
        kind: Kind = "astro" if n % 2 == 0 else "micro"
        evidence = clean(kind, 1000 + n, setting_of(kind, np.random.default_rng([13, n])), 64)
        for how, one in (("with", evidence), ("without", replace(evidence, truth=None, shared={}))):
            found = checks.check(one)
            verdicts[f"{how} {checks.verdict(found, {}, kind)}"] += 1
            names.update({f"{how} {r.name}" for r in found if r.passed is False})
        print("alarms", n, dict(verdicts), dict(names), file=sys.stderr, flush=True)
    rows = [f"| {name} | {names[f'with {name}']} | {names[f'without {name}']} |"
            for name in sorted({key.split()[1] for key in names})]  # fmt: skip
    head = ["| of so many clean frames: " + f"{count} | with a truth | without |", "|---|---|---|"]
    told = [
        f"| **{v}** | **{verdicts[f'with {v}']}** | **{verdicts[f'without {v}']}** |" for v in ("pass", "warn", "fail")
    ]
    return "\n".join([*head, *told, *rows])


def put(name: str, text: str) -> None:
    """Replace what stands between the page's marks of a part."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    page = PAGE.read_text()
    PAGE.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL))


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="defects,alarms,trust")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--clean", type=int, default=100)
    parser.add_argument("--print", action="store_true")
    given = parser.parse_args(words)
    import judges_trust

    parts = {
        "defects": lambda: defect_table(given.frames),
        "alarms": lambda: alarms(given.clean),
        "trust": judges_trust.page,
    }
    for name in given.only.split(","):
        text = parts[name]()
        if given.print:
            print(text)
        else:
            put(name, text)


if __name__ == "__main__":
    main()
