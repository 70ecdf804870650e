"""
Plots of figures, as SVG that a browser or a page of Markdown shows.

    python -m bench.plot bench/results/vectors.json    beside it, what its figures can be drawn as
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

WIDTH: Final = 640
HEIGHT: Final = 400
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 36, 52
COLORS: Final = ("#0b6e99", "#d9480f", "#2b8a3e", "#7048e8", "#868e96", "#c2255c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What is along an axis; `is_log` where a factor is worth as much everywhere."""

    label: str
    is_log: bool = False


def write_plot(
    path: Path,
    title: str,
    x: Axis,
    y: Axis,
    lines: Mapping[str, Sequence[tuple[float, float]]],
) -> None:
    """Write a plot with a line, and its name, for each of `lines`; a line may be one point."""
    points = [point for line in lines.values() for point in line]
    across = _Scale(x, [point[0] for point in points], LEFT, WIDTH - RIGHT)
    up = _Scale(y, [point[1] for point in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 20, title, size=14),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x.label, anchor="middle"),
        f'<g transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)">'
        f"{_text(0, 0, y.label, anchor='middle')}</g>",
    ]
    for value in across.ticks():
        at = across(value)
        parts.append(_line(at, TOP, at, HEIGHT - BOTTOM))
        parts.append(_text(at, HEIGHT - BOTTOM + 16, f"{value:,.4g}", anchor="middle"))
    for value in up.ticks():
        at = up(value)
        parts.append(_line(LEFT, at, WIDTH - RIGHT, at))
        parts.append(_text(LEFT - 6, at + 4, f"{value:,.4g}", anchor="end"))
    for number, (name, line) in enumerate(lines.items()):
        color = COLORS[number % len(COLORS)]
        places = [(across(a), up(b)) for a, b in line]
        path_of = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(
            f'<polyline points="{path_of}" fill="none" stroke="{color}" stroke-width="2"/>'
        )
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{color}"/>' for a, b in places]
        parts.append(_text(WIDTH - RIGHT + 12, TOP + 14 + 18 * number, name, color=color))
    path.write_text("\n".join([*parts, "</svg>", ""]))


class _Scale:
    """From values to places between two ends, with some room."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        self._of = math.log10 if axis.is_log else float
        self._is_log = axis.is_log
        low, high = min(map(self._of, values)), max(map(self._of, values))
        room = (high - low or 1.0) * 0.06
        self._low, self._high = low - room, high + room
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (self._of(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Round values between the ends, four to nine of them."""
        if self._is_log:
            decades = range(math.floor(self._low), math.ceil(self._high) + 1)
            found = [m * 10.0**d for d in decades for m in (1, 2, 5)]
            return [one for one in found if self._low <= math.log10(one) <= self._high]
        rough = (self._high - self._low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        return [number * step for number in range(first, last + 1)]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e9ecef"/>'


def _text(
    x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", color: str = "#343a40"
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="{color}">{escape(text)}</text>'


# What figures can be drawn as.

RATE: Final = Axis(label="queries a second", is_log=True)


def draw(results: Path) -> list[Path]:
    """The plots of the figures in a file of results, beside it."""
    figures: list[dict[str, Any]] = json.loads(results.read_text())["results"]
    drawn = []
    for case in dict.fromkeys(str(f["params"].get("dimensions", "")) for f in figures):
        of_case = [f for f in figures if str(f["params"].get("dimensions", "")) == case]
        of = f" at {case} dimensions" if case else ""
        stem = results.stem + (f"-{case}" if case else "")
        if lines := recall_lines(of_case):
            path = results.with_name(f"{stem}-recall.svg")
            recall = Axis(label="recall of the ten best")
            write_plot(path, f"Recall against queries a second{of}", recall, RATE, lines)
            drawn.append(path)
        if lines := latency_lines(of_case):
            path = results.with_name(f"{stem}-writes.svg")
            writes = Axis(label="writes a second")
            latency = Axis(label="ms until a search is answered", is_log=True)
            write_plot(path, f"Searches beside writes{of}", writes, latency, lines)
            drawn.append(path)
    return drawn


def recall_lines(figures: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Of searches of all: recall and rate, for each width that was tried."""
    found: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for figure in figures:
        params = figure["params"]
        if figure["name"] == "searches" and params.get("of_one_in") == 1:
            name = figure["peer"] or f"headrace, {params['way']}"
            found[name, params["width"]][figure["metric"]] = figure["value"]
    lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (name, _), values in sorted(found.items()):
        lines[name].append((values["recall"], values["rate"]))
    return lines


def latency_lines(figures: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Of searches beside writes: how many were written, and how late half and nearly all are."""
    lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for figure in figures:
        if figure["name"] == "beside_writes" and figure["metric"] in ("p50", "p99"):
            point = figure["params"]["written_per_s"], figure["value"]
            lines[figure["metric"]].append(point)
    return lines


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(*draw(Path(name)), sep="\n")
