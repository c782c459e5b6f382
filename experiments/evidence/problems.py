"""The problems of the honest table: one description each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Base = Literal["tinystories", "minilm", "smollm2", "gemma", "resnet", "diffusion"]


@dataclass(frozen=True)
class Problem:
    """A published or quantized file, and data to tune it on.

    Attributes:
        title: what the page calls it.
        base: the model; ``files.py`` makes its other forms.
        task: of ``forq tune --task``.
        data: the place of its data in the data folder; empty: ``files.py`` has them.
        options: of the task, whole numbers.
        forwards: the budget of every method. A backward pass counts as two forwards.
        seeds: of the methods that are run in full.
        judged: what the table compares on test, and which way is better.
        unit: of the loss.
        core: whether every method is run, or only those that ``methods.SOME`` names.
        apart: whether the model reads every row by itself, so that rows can see directions of their own.
        label: how real the model and its data are.
        activations: of the methods by forward passes; back-propagation computes in float32.
    """

    title: str
    base: Base
    task: str
    data: str
    options: Mapping[str, int]
    forwards: int
    seeds: tuple[int, ...]
    judged: Literal["loss", "accuracy"]
    core: bool = True
    apart: bool = True
    label: Literal["toy", "small real"] = "small real"
    unit: str = "nats"
    activations: Literal["float", "bfloat16"] = "float"

    @property
    def sets(self) -> list[str]:
        """The options as words of ``forq tune``."""
        return [word for name, value in self.options.items() for word in ("--set", f"task.{name}={value}")]


_ROWS = {"batch_rows": 16}
_FEW = {**_ROWS, "validation_rows": 160}
_DRAWN = {**_ROWS, "resolution": 28, "text_tokens": 1, "micro_batch": 64, "samples": 0}
"""As experiments/diffusion/adapt.py has it; no sample is drawn, which would cost more than the steps."""

PROBLEMS: dict[str, Problem] = {
    "tinystories": Problem(
        "TinyStories-656K, GPTQ 4 bits, on Shakespeare",
        *("tinystories", "text", "tinyshakespeare/input.txt", {"validation_rows": 64}, 1000),
        seeds=(0, 1, 2, 3, 4),
        judged="loss",
    ),
    "minilm": Problem(
        "all-MiniLM-L6-v2, GPTQ 4 bits, on SST-2",
        *("minilm", "sst2", "sst2", _ROWS, 1000),
        seeds=(0, 1, 2),
        judged="accuracy",
        apart=False,
    ),
    "smollm2": Problem(
        "SmolLM2-135M-Instruct, its own Q4_1 file, on SST-2; forward passes multiply in bfloat16",
        *("smollm2", "sst2", "sst2", _FEW, 1000),
        seeds=(0, 1, 2),
        judged="accuracy",
        activations="bfloat16",
    ),
    "gemma": Problem(
        "Gemma-3-270M, Q4_K_M, on SST-2; forward passes multiply in bfloat16",
        *("gemma", "sst2", "sst2", _FEW, 500),
        seeds=(0, 1, 2),
        judged="accuracy",
        activations="bfloat16",
        core=False,
    ),
    "house-style": Problem(
        "SmolLM2-135M-Instruct, its own Q4_1 file, on the 150 tickets of examples/house_style",
        *("smollm2", "completion", "", {"batch_rows": 8}, 200),
        seeds=(0, 1, 2),
        judged="loss",
        core=False,
    ),
    "resnet": Problem(
        "ResNet-20, int8 by onnxruntime, on 1,000 pictures of a noisy camera",
        *("resnet", "classify-images", "", {"batch_rows": 64}, 500),
        seeds=(0, 1, 2),
        judged="accuracy",
        core=False,
    ),
    "diffusion": Problem(
        "A small Stable Diffusion 3, NF4, on thick digits",
        *("diffusion", "text-to-image", "", _DRAWN, 1000),
        seeds=(0, 1, 2),
        judged="loss",
        core=False,
        label="toy",
        unit="mean square",
    ),
}
