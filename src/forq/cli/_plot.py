"""A run's losses as a picture, from its metrics alone."""

from __future__ import annotations

import json
from pathlib import Path


def losses(run: Path, title: str) -> Path:
    """Draw training and validation loss against forward passes into ``RUN/loss.png``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [row for row in rows if row.get("loss") is not None]
    scores = [row for row in rows if "score" in row]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(
        [row["forwards"] for row in steps],
        [row["loss"] for row in steps],
        color="#b9c4d0",
        lw=0.8,
        label="training batch",
    )
    axes.plot(
        [row["forwards"] for row in scores],
        [row["score"]["loss"] for row in scores],
        color="#0b5fa5",
        marker="o",
        ms=4,
        label="validation, as saved",
    )
    axes.set(xlabel="forward passes", ylabel="loss, nats per token", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path = run / "loss.png"
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path
