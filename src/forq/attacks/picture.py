"""Pictures of an attack: original, change and result; and, with matplotlib, success against queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forq.attacks.result import Result, steps

_SIDE, _GAP, _TEXT, _ROWS = 128, 8, 18, 8


def draw(result: Result, originals: NDArray[np.uint8], path: Path) -> bool:
    """Draw picture.png: up to eight attacked images, successes first, one per row.

    Each row has the original, the change (amplified, around grey) and the result.

    Returns:
        Whether there was anything to draw.
    """
    from PIL import Image, ImageDraw

    attacked = [outcome for outcome in result.outcomes if outcome.correct]
    rows = sorted(attacked, key=lambda outcome: (not outcome.success, outcome.index))[:_ROWS]
    if not rows:
        return False
    width, height = 3 * _SIDE + 4 * _GAP, len(rows) * (_SIDE + _TEXT + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, outcome in enumerate(rows):
        top = _GAP + number * (_SIDE + _TEXT + _GAP)
        original = originals[outcome.index]
        change = outcome.image.astype(np.int16) - original
        gain = 127 // max(int(np.abs(change).max()), 1)
        target = "" if outcome.target is None else f" (target {outcome.target})"
        answer = "class" if outcome.success else "still"
        panels = (
            (original, f"image {outcome.index}: class {outcome.label}{target}"),
            ((128 + gain * change).astype(np.uint8), f"change x {gain}" if outcome.success else "no success"),
            (outcome.image, f"{answer} {outcome.answer}, {outcome.queries} queries"),
        )
        for column, (image, caption) in enumerate(panels):
            left = _GAP + column * (_SIDE + _GAP)
            pen.text((left, top), caption, fill="black")
            colour = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("RGB")
            sheet.paste(colour.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (left, top + _TEXT))
    sheet.save(path)
    return True


def plot(result: Result, path: Path) -> bool:
    """Draw curve.png: the success rate against queries, among the images classified correctly.

    Returns:
        False if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    won = (outcome.queries for outcome in result.outcomes if outcome.success)
    points = result.curve(sorted({*steps(result.budget), *won}))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.step([q for q, _ in points], [100 * share for _, share in points], where="post")
    axes.set(xscale="log", xlabel="queries", ylabel="success rate, % of images classified correctly", ylim=(0, 100))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    return True
