"""Line charts as SVG that take their colours from the page.

Not matplotlib's SVG: its colours are fixed, where the page has light, dark and print palettes; its ids repeat from
chart to chart; and seven charts take 2.3 s and 135 KB instead of 3 ms and 27 KB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]
Style = Literal["line", "dashed", "dots", "steps"]

WIDTH, HEIGHT = 460, 300
"""Units of the drawing; text is 13 of them, to be legible on a phone."""
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 46
"""Room beside the axes."""
MOST = 300
"""Most points of a line; of longer ones every n-th is drawn."""
MOST_DOTS = 1500
"""Most dots."""
LEAST_DECADES = 1.5
"""A logarithmic axis of fewer decades has marks at 1, 2 and 5, one of more at the decades."""


@dataclass(frozen=True)
class Series:
    """One curve: x and y (n,); points that are not finite are left out."""

    name: str
    x: ArrayLike
    y: ArrayLike
    style: Style = "line"
    colour: int = 1
    """1 to 6 of the page's colours; 0 is that of the text."""
    spread: ArrayLike | None = None
    """Half length of vertical error bars."""


@dataclass(frozen=True)
class Guide:
    """A straight reference line, with its name."""

    words: str
    at: float
    axis: Literal["x", "y"] = "y"


@dataclass(frozen=True)
class Chart:
    """What `draw` draws, in data units; ``x`` and ``y`` are the names of the axes."""

    title: str
    x: str
    y: str
    series: Sequence[Series]
    words: str = ""
    """What to look for, one sentence; screen readers say it, too."""
    x_log: bool = False
    y_log: bool = False
    guides: Sequence[Guide] = ()
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Axis:
    """A range of data, and the range of the drawing that it covers."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, values: ArrayLike) -> Points:
        """Map values (n,) or a number to units of the drawing, same shape; NaN for what has no logarithm."""
        found = np.asarray(values, float)
        low, high = self.low, self.high
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                found, low, high = np.log10(np.where(found > 0, found, np.nan)), np.log10(low), np.log10(high)
        return np.asarray(self.start + (found - low) / (high - low) * (self.end - self.start))

    @property
    def ticks(self) -> list[float]:
        """Round values within the range, about five; decades where it is logarithmic and long."""
        return _log_ticks(self.low, self.high) if self.log else _even_ticks(self.low, self.high)


def draw(chart: Chart) -> str | None:
    """Draw a chart as one ``<figure>`` with its legend; None where nothing in it is finite.

    Colours are the page's CSS variables through the classes ``c0`` to ``c6``, for light, dark and print. There are no
    ids: a page may hold any number of charts.
    """
    axes = _axes(chart)
    if axes is None:
        return None
    x, y = axes
    label = escape(f"{chart.title}. {chart.words}", quote=True)
    inner = "".join(_guide(guide, x, y) for guide in chart.guides)
    inner += "".join(_series(one, x, y) for one in reversed(chart.series))  # the first on top
    return (
        f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{_frame(chart, x, y)}'
        f'<svg x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" '
        f'viewBox="{LEFT} {TOP} {WIDTH - LEFT - RIGHT} {HEIGHT - TOP - BOTTOM}">{inner}</svg>'
        f"</svg>{_legend(chart)}<p>{escape(chart.words)}</p></figure>"
    )


def _axes(chart: Chart) -> tuple[Axis, Axis] | None:
    """Both axes, with room around the data and around the guides."""
    room = 0.03 if any(one.style == "dots" for one in chart.series) else 0.0
    x = _range([np.asarray(s.x, float) for s in chart.series], chart.x_log, chart.x_range, room, ())
    extra = [g.at for g in chart.guides if g.axis == "y"]
    y = _range([part for s in chart.series for part in _heights(s)], chart.y_log, chart.y_range, 0.06, extra)
    if x is None or y is None:
        return None
    return Axis(*x, LEFT, WIDTH - RIGHT, chart.x_log), Axis(*y, HEIGHT - BOTTOM, TOP, chart.y_log)


def _heights(series: Series) -> list[Points]:
    """y, or the ends of its error bars, (n,) each."""
    y = np.asarray(series.y, float)
    if series.spread is None:
        return [y]
    spread = np.asarray(series.spread, float)
    return [y - spread, y + spread]


def _range(
    parts: Sequence[Points], log: bool, given: tuple[float, float] | None, room: float, extra: Sequence[float]
) -> tuple[float, float] | None:
    """Ends of an axis: those given, else the data's and the guides' with some room; None without data."""
    values = np.concatenate([np.ravel(part) for part in parts]) if parts else np.empty(0)
    values = values[np.isfinite(values) & ((values > 0) if log else True)]
    if not values.size:
        return None
    if given is not None:
        return given
    ends = np.array([values.min(), values.max(), *(e for e in extra if e > 0 or not log)])
    low, high = float(ends.min()), float(ends.max())
    if log:
        low, high = np.log10(low), np.log10(high)
    if high - low <= 1e-12 * max(abs(high), abs(low)):
        low, high = low - (0.5 * abs(low) or 0.5), high + (0.5 * abs(high) or 0.5)
    low, high = low - room * (high - low), high + room * (high - low)
    return (10**low, 10**high) if log else (low, high)


def _even_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten, about five of them."""
    raw = (high - low) / 5
    power = 10 ** np.floor(np.log10(raw))
    step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= raw * (1 - 1e-9))
    return [float(step * i) for i in range(int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9)) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and 2 and 5 times these in a short range; six decades at most."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    decades = np.log10(high / low)
    parts = (1, 2, 5) if decades < LEAST_DECADES else (1,)
    every = max(1, int(np.ceil(decades / 6)))
    found = [n * 10.0**power for power in range(first, last + 1, every) for n in parts]
    return [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


def _tick_label(value: float) -> str:
    """Label of a tick, beyond 1e-3 to 1e5 as a power of ten."""
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, power = f"{value:.0e}".split("e")
        sign = "" if mantissa == "1" else "−" if mantissa == "-1" else f"{mantissa}·".replace("-", "−")
        return f'{sign}10<tspan dy="-5" font-size="9">{int(power)}</tspan>'.replace(">-", ">−")
    return f"{value:.6g}".replace("-", "−")


def _frame(chart: Chart, x: Axis, y: Axis) -> str:
    """Grid, tick labels, and names of the axes."""
    parts = []
    for tick in x.ticks:
        at = float(x.place(tick))
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{_tick_label(tick)}</text>')
    for tick in y.ticks:
        at = float(y.place(tick))
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_tick_label(tick)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(chart.x)}</text>'
    )
    parts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(chart.y)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    return "".join(parts)


def _guide(guide: Guide, x: Axis, y: Axis) -> str:
    """A reference line with its name, on the side where there is room."""
    if guide.axis == "y":
        at = float(y.place(guide.at))
        return (
            f'<path class="guide" d="M{LEFT} {at:.1f}H{WIDTH}"/>'
            f'<text class="guide" x="{WIDTH - RIGHT - 4}" y="{at - 4:.1f}" text-anchor="end">'
            f"{escape(guide.words)}</text>"
        )
    at = float(x.place(guide.at))
    left = at > (LEFT + WIDTH) / 2
    return (
        f'<path class="guide" d="M{at:.1f} 0V{HEIGHT}"/><text class="guide" x="{at + (-4 if left else 4):.1f}" '
        f'y="{TOP + 14}" text-anchor="{"end" if left else "start"}">{escape(guide.words)}</text>'
    )


def _series(series: Series, x: Axis, y: Axis) -> str:
    """One curve in its style."""
    across, up = x.place(series.x), y.place(series.y)
    bars = _error_bars(series, across, y)
    keep = np.isfinite(across) & np.isfinite(up)
    across, up = across[keep], np.clip(up[keep], -1e4, 1e4)  # far beyond the frame browsers lose precision
    if not across.size:
        return ""
    maker = {"dots": _dots, "steps": _steps}.get(series.style, _line)
    return f'<g class="c{series.colour}">{bars}{maker(across, up, y, series.style)}</g>'


def _thin_out(across: Points, up: Points, most: int) -> tuple[Points, Points]:
    """Points (n,), evenly chosen where they are too many."""
    if across.size <= most:
        return across, up
    chosen = np.unique(np.linspace(0, across.size - 1, most).astype(int))
    return across[chosen], up[chosen]


def _line(across: Points, up: Points, y: Axis, style: str) -> str:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(*_thin_out(across, up, MOST), strict=True))
    return f'<polyline class="{style}" points="{points}"/>'


def _steps(across: Points, up: Points, y: Axis, style: str) -> str:
    """A histogram's outline; points are the middles of the steps."""
    half = np.diff(across, append=2 * across[-1] - across[-2] if across.size > 1 else across[-1] + 4) / 2
    x = np.stack([across - half, across + half], 1).ravel()
    return _line(x, np.repeat(up, 2), y, "line")


def _dots(across: Points, up: Points, y: Axis, style: str) -> str:
    radius = 3 if across.size <= 60 else 1.6
    across, up = _thin_out(across, up, MOST_DOTS)
    each = (
        f"M{a - radius:.1f} {b:.1f}a{radius} {radius} 0 1 0 {2 * radius} 0a{radius} {radius} 0 1 0 {-2 * radius} 0"
        for a, b in zip(across, up, strict=True)
    )
    return f'<path class="dots" d="{"".join(each)}"/>'


def _error_bars(series: Series, across: Points, y: Axis) -> str:
    if series.spread is None:
        return ""
    ends = [y.place(part) for part in _heights(series)]
    rows = zip(across, *ends, strict=True)
    each = (f"M{a:.1f} {low:.1f}V{high:.1f}" for a, low, high in rows if np.isfinite([a, low, high]).all())
    return f'<path class="spread" d="{"".join(each)}"/>'


def _legend(chart: Chart) -> str:
    named = [one for one in chart.series if one.name]
    if len(named) < 2 and not (named and chart.guides):
        return ""
    keys = "".join(f'<span class="key c{one.colour} {one.style}">{escape(one.name)}</span>' for one in named)
    return f'<div class="legend">{keys}</div>'


GAUGE = (132, 18)
"""Width and height of a `gauge`."""


def gauge(value: float, limit: tuple[float | None, float | None], others: Sequence[float] = ()) -> str:
    """Draw a strip: the accepted range shaded, a mark at the value, ticks at the baselines' values.

    The strip covers the range and the value; baselines beyond it are drawn at its ends.

    Parameters
    ----------
    value : of the image.
    limit : accepted ends, None for an open one.
    others : values of the baselines.

    Returns
    -------
    SVG; empty where there is no limit.
    """
    if limit == (None, None) or not np.isfinite(value):
        return ""
    axis = Axis(*_reach(value, limit), 0, GAUGE[0])
    start = 0.0 if limit[0] is None else float(axis.place(limit[0]))
    end = float(GAUGE[0]) if limit[1] is None else float(axis.place(limit[1]))
    ticks = "".join(f"M{_within(axis, other):.1f} 4v10" for other in others if np.isfinite(other))
    return (
        f'<svg class="gauge" viewBox="0 0 {GAUGE[0]} {GAUGE[1]}" aria-hidden="true">'
        f'<path class="axis" d="M0 9H{GAUGE[0]}"/>'
        f'<rect class="accepted" x="{start:.1f}" y="2" width="{max(end - start, 1.5):.1f}" height="14"/>'
        f'<path class="others" d="{ticks}"/><circle cx="{_within(axis, value):.1f}" cy="9" r="5"/></svg>'
    )


def _within(axis: Axis, value: float) -> float:
    return min(max(float(axis.place(value)), 5.0), GAUGE[0] - 5.0)


def _reach(value: float, limit: tuple[float | None, float | None]) -> tuple[float, float]:
    """Ends of a strip: the range and three quarters of its width to each side; of a single end, past the value."""
    low, high = limit
    if low is not None and high is not None and high > low:
        return low - 0.75 * (high - low), high + 0.75 * (high - low)
    end = low if low is not None else high
    assert end is not None
    room = 0.6 * max(abs(value - end), 0.1 * abs(end), 1e-12)
    return min(value, end) - room, max(value, end) + room
