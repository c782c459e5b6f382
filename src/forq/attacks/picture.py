"""Pictures of an attack: original, what was added, result; and success against queries, if matplotlib is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forq.attacks.result import Result, steps

_SIDE, _GAP, _TEXT, _ROWS = 128, 8, 18, 8


def draw(result: Result, originals: NDArray[np.uint8], path: Path) -> bool:
    """picture.png: the first eight successes (else failures), one a row; the change is shown around grey, amplified.

    Returns:
        Whether there was anything to draw.
    """
    from PIL import Image, ImageDraw

    attacked = [one for one in result.outcomes if one.correct]
    shown = sorted(attacked, key=lambda one: (not one.success, one.index))[:_ROWS]
    if not shown:
        return False
    width, height = 3 * _SIDE + 4 * _GAP, len(shown) * (_SIDE + _TEXT + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, one in enumerate(shown):
        top = _GAP + number * (_SIDE + _TEXT + _GAP)
        original = originals[one.index]
        k = one.image.astype(np.int16) - original
        gain = 127 // max(int(np.abs(k).max()), 1)
        goal = "" if one.target is None else f" (target {one.target})"
        end = (
            f"class {one.answer}, {one.queries} queries"
            if one.success
            else f"still {one.answer}, {one.queries} queries"
        )
        panels = (
            (original, f"image {one.index}: class {one.label}{goal}"),
            ((128 + gain * k).astype(np.uint8), f"change x {gain}" if one.success else "no success"),
            (one.image, end),
        )
        for place, (image, said) in enumerate(panels):
            left = _GAP + place * (_SIDE + _GAP)
            pen.text((left, top), said, fill="black")
            plain = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("RGB")
            sheet.paste(plain.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (left, top + _TEXT))
    sheet.save(path)
    return True


def plot(result: Result, path: Path) -> bool:
    """curve.png: share of the rightly classified images that fell, against queries.

    Returns:
        False where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    at = sorted({*steps(result.budget), *(one.queries for one in result.outcomes if one.success)})
    points = result.curve(at)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.step([q for q, _ in points], [100 * share for _, share in points], where="post")
    axes.set(xscale="log", xlabel="queries", ylabel="misclassified, % of rightly classified", ylim=(0, 100))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    return True
