"""A look at the pairs of a folder or a set before training: how brightness and position of their images differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sciresdiff.notes import Notes
from sciresdiff.training.given_pair import Comparison, GivenPair
from sciresdiff.training.intensity import Intensity

SCATTERED = 1.1
"""Ratio of the largest to the least gain of a channel from which on the user is warned."""
DISPLACED = 0.15
"""Displacement from which on the user is warned, coarse px."""
CLIPPED = 1e-3
"""Share of clipped pixels that is told."""


@dataclass(frozen=True)
class Relation:
    """low = gain * high + offset, of most pairs of a channel."""

    gain: float
    offset: float


@dataclass(frozen=True)
class PairSurvey:
    """What a look at the pairs of one folder or set found."""

    name: str
    """Of the folder or set."""
    files: int
    """Pairs that were looked at."""
    found: Mapping[int, Sequence[Comparison]] = field(default_factory=dict)
    """Channel -> its planes."""

    def usual(self, channel: int) -> Relation | None:
        """The relation of a channel, if most of its pairs that tell differ in brightness; else None."""
        known = [c.intensity for c in self.found.get(channel, ()) if c.intensity is not None and c.intensity.is_known]
        if not known or sum(i.differs for i in known) <= len(known) / 2:
            return None
        return Relation(float(np.median([i.gain for i in known])), float(np.median([i.offset for i in known])))

    def match(self, pair: GivenPair, channel: int, own: Comparison | None) -> GivenPair:
        """A pair whose fine image is matched to the coarse one: by itself where it tells, else as most are.

        Parameters
        ----------
        pair : to match.
        channel : that it is of.
        own : its own comparison; None for pairs that are matched together.
        """
        tells = own.intensity if own else None
        if tells is None or not tells.is_known:
            usual = self.usual(channel)
            return pair.match(usual.gain, usual.offset) if usual else pair
        pair = pair.without_clipped(tells)
        return pair.match(tells.gain, tells.offset) if tells.differs else pair

    def notes(self) -> Notes:
        """What the user should know; nothing of pairs that agree."""
        return self._brightness() + self._position()

    def _brightness(self) -> Notes:
        """Lines on gain, offset and clipping, one for each channel that differs."""
        notes = Notes()
        for channel, planes in self.found.items():
            told = [c.intensity for c in planes if c.intensity is not None and c.intensity.is_known]
            differ = [i for i in told if i.differs]
            name = self.name if len(self.found) == 1 else f"{self.name}, channel {channel}"
            if differ:
                notes += Notes(_describe(name, differ, len(planes)))
            cut = sum(int(i.clipped.sum()) for i in told)
            if cut > CLIPPED * sum(i.clipped.size for i in told):
                notes += Notes(
                    f"WARNING {name}: {cut} px of the low images are cut at their largest or least value; left out"
                )
            unclear = [c.intensity for c in planes if c.intensity is not None and not c.intensity.is_known]
            if unclear and not told:
                notes += Notes(
                    f"WARNING {name}: how bright the low images are beside the high ones cannot be told to"
                    " 5 %; they are taken as they are: check that both have one unit"
                )
        return notes

    def _position(self) -> Notes:
        """A line on displacements."""
        planes = [c for found in self.found.values() for c in found]
        apart = [
            c.shift
            for c in planes
            if c.shift is not None and c.apart > 0 and np.hypot(c.shift.y, c.shift.x) > DISPLACED
        ]
        if 2 * len(apart) <= sum(c.shift is not None for c in planes) and len(apart) < 3:
            return Notes()
        y, x = (float(np.median([getattr(s, axis) for s in apart])) for axis in "yx")
        return Notes(
            f"WARNING {self.name}: the low images lie ({y:+.2f}, {x:+.2f}) px (y, x) from the high ones, in the"
            f" median of {len(apart)} of {len(planes)}; a model would learn this shift: register them"
        )


def _describe(name: str, differ: Sequence[Intensity], count: int) -> str:
    """How brightness differs: the usual relation, and by how much it scatters."""
    gains, errors = np.array([i.gain for i in differ]), np.array([i.gain_error for i in differ])
    offset = float(np.median([i.offset for i in differ]))
    sign, pairs = "-" if offset < 0 else "+", "pair differs" if len(differ) == 1 else "pairs differ"
    least, most = float(gains.min()), float(gains.max())
    line = f"low = {np.median(gains):.4g} x high {sign} {abs(offset):.4g}"
    scattered = len(gains) > 1 and most > SCATTERED * least and most - least > 10 * float(np.median(errors))
    if scattered:
        return (
            f"WARNING {name}: the gain between low and high differs from pair to pair, {least:.3g} ... {most:.3g}; each"
            f" high image is matched to its low one by itself ({line} in the median of {len(differ)} of {count});"
            " check that the files are of one series of exposures"
        )
    spread = f", gain {least:.4g} ... {most:.4g}" if len(gains) > 1 else f", gain +- {errors[0]:.2g}"
    return f"{name}: {len(differ)} of {count} {pairs} in brightness: {line}{spread}; the high images are matched to it"
