"""The files that the methods start from and the rows that no data set has, made once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from methods import Form

EXPERIMENTS = Path(__file__).parents[1]
sys.path += [str(EXPERIMENTS), str(EXPERIMENTS / "diffusion")]


def made(out: Path, *words: str) -> Path:
    """What ``forq WORDS`` writes to ``out``; nothing if it is there."""
    if not out.exists():
        subprocess.run([sys.executable, "-m", "forq", *words], check=True, stdout=sys.stderr)
    return out


class Files:
    """The forms of every base model.

    Args:
        given: the published files, and the float models that are quantized here, by base.
        data: the data folder.
        work: the folder of what is made.
    """

    def __init__(self, given: Mapping[str, Path], data: Path, work: Path) -> None:
        self.given, self.data, self.work = given, data, work

    def of(self, base: str, form: Form) -> Path:
        """The file of a base model in a form.

        Raises:
            SystemExit: the base was not given.
        """
        if base not in self.given:
            raise SystemExit(f"--{base}: give the file or folder of the model")
        source = self.given[base]
        if base == "resnet":
            import edge

            return edge.quantized(self.data, self.work / "resnet")["qdq"]
        if base == "diffusion":
            from forq.models.convert.onload import quantized

            return quantized(source, "nf4", self.work / "diffusion-nf4")
        if base in ("tinystories", "minilm"):
            four = self.work / f"{base}-gptq4-g64"
            source = made(four, "quantize", str(source), str(four), "--group-size", "64")
        if form == "published":
            return source
        floats = self.work / f"{base}-float32"
        made(floats, "export", str(source), "--to", "float32", "--out", str(floats))
        if form == "dequantised":
            return floats
        nf4 = self.work / f"{base}-nf4"
        return made(nf4, "quantize", str(floats), str(nf4), "--to", "nf4")

    def rows(self, base: str) -> Path:
        """Rows that no data set has, the same for every seed: tickets, other digits, or a worse camera's pictures."""
        if base == "smollm2":
            return Path("examples", "house_style", "rows")  # from the project's folder, where every command runs
        if base == "diffusion":
            import adapt  # it needs diffusers, which no other problem does

            return adapt.folder(self.data, self.work, "thick")
        made = self.work / "noisy.npz"
        if not made.exists():
            from edge_images import SHIFTS, rows

            rows(self.data, self.work, "noise", SHIFTS["noise"][-1], 1000, 0).replace(made)
        return made
