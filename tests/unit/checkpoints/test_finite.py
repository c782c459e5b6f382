"""A NaN or an infinity in a checkpoint is refused on load, by the name of its tensor; in every format."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from forq.checkpoints import Checkpoint, finite
from forq.errors import FormatError
from forq.formats import get
from forq.models.convert.export import export
from forq.models.convert.quantize import quantize
from forq.models.load import load
from tests import tiny_checkpoints
from tests.fixtures import FORMATS, example


def spoiled(folder: Path, name: str, value: float) -> None:
    """Put a number into the middle of a tensor, in the file itself."""
    ckpt = Checkpoint.open(folder)
    info, tensor = ckpt.info[name], ckpt.read(name)
    tensor.view(-1)[tensor.numel() // 2] = value
    with (ckpt.folder / info.file).open("r+b") as stream:
        info.write(stream, tensor)
    if ckpt.contents.mend is not None:
        ckpt.contents.mend(ckpt.folder)


def live(folder: Path, form: str) -> dict[str, str]:
    """A continuous tensor of a quantized layer by group, where the file has it as floats."""
    ckpt = Checkpoint.open(folder)
    specs = get(form).layers(ckpt).values()
    return {one.group: one.name for spec in specs for one in spec.live if ckpt.info[one.name].dtype.is_floating_point}


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_names_the_tensor(form: str, value: float, tmp_path: Path) -> None:
    folder = example(form, tmp_path / "example")
    names = live(folder, form)
    assert names
    said = "1 NaN and 0 infinite" if math.isnan(value) else "0 NaN and 1 infinite"
    for group, name in names.items():
        folder = example(form, tmp_path / group)
        spoiled(folder, name, value)
        with pytest.raises(FormatError, match=f"{name}: expected finite numbers, found {said}"):
            load(folder, device="cpu")


def test_floats_are_named_too_and_nothing_is_made_of_them(tmp_path: Path) -> None:
    folder = tiny_checkpoints.folder(tmp_path / "float", "llama", torch.float16)
    name = next(name for name in Checkpoint.open(folder).info if name.endswith("down_proj.weight"))
    good = quantize(folder, tmp_path / "good", group_size=32).path
    spoiled(folder, name, math.inf)
    with pytest.raises(FormatError, match=f"{name}: expected finite numbers"):
        load(folder, device="cpu")
    for to, bits in (("gptq", 4), ("nf4", 4)):
        with pytest.raises(FormatError, match=f"{name}: expected finite numbers"):
            quantize(folder, tmp_path / to, bits, 32, to=to)
        assert not (tmp_path / to).exists()
    scales = name.replace(".weight", ".scales")
    spoiled(good, scales, math.nan)
    with pytest.raises(FormatError, match=f"{scales}: expected finite numbers"):
        export(good, tmp_path / "out", "float16")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_numbers_of_every_size_pass_as_they_are(dtype: torch.dtype) -> None:
    edge = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min, torch.finfo(dtype).tiny, 0.0], dtype=dtype)
    assert finite.check("x", edge) is edge
    assert finite.check("x", torch.empty(0, dtype=dtype)).numel() == 0
    with pytest.raises(FormatError, match="x: expected finite numbers, found 2 NaN and 1 infinite among 7"):
        finite.check("x", torch.cat([edge, torch.tensor([math.nan, math.inf, math.nan], dtype=dtype)]))
