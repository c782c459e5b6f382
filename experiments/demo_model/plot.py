"""Draw the learning curve of the demo model: curve.csv, as `pretrain.py` writes it, to a picture beside it.

python plot.py curve.csv curve.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description="Learning curve of the demo model.")
    parser.add_argument("curve", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    with args.curve.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    tokens = [int(row["tokens"]) / 1e6 for row in rows]
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    axes.plot(
        tokens,
        [float(row["train_loss"]) for row in rows],
        marker=".",
        label="training (mean since last point)",
    )
    held_out = [float(row["held_out_loss"]) for row in rows]
    axes.plot(tokens, held_out, marker="o", markersize=4, label="held-out documents")
    axes.annotate(
        f"{held_out[-1]:.3f}",
        (tokens[-1], held_out[-1]),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
    )
    axes.set(
        xlabel="training tokens (millions)",
        ylabel="loss (nats per token)",
        title="Demo model, prose, one core",
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(args.picture, dpi=110)


if __name__ == "__main__":
    main()
