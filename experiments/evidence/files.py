"""The files that the methods start from, made once by forq's own commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from methods import Form


def made(out: Path, *words: str) -> Path:
    """What ``forq WORDS`` writes to ``out``; nothing if it is there."""
    if not out.exists():
        subprocess.run([sys.executable, "-m", "forq", *words], check=True, stdout=sys.stderr)
    return out


class Files:
    """The forms of every base model.

    Args:
        given: the published files, and the float models that are quantized here, by base.
        work: the folder of what is made.
    """

    def __init__(self, given: Mapping[str, Path], work: Path) -> None:
        self.given, self.work = given, work

    def of(self, base: str, form: Form) -> Path:
        """The file of a base model in a form.

        Raises:
            SystemExit: the base was not given.
        """
        if base not in self.given:
            raise SystemExit(f"--{base}: give the file or folder of the model")
        source = self.given[base]
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
