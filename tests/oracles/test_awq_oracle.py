"""The library AWQ loads through, in an environment of its own: it writes, we load, move and save, it loads.

Its plain kernel computes every layer in float16: the activations, the weight and the product are rounded to it. With
those roundings imitated the losses agree to 5e-5 (sums run in another order, and then a rounding falls the other way
now and then); without, to 2e-4. Dequantised matrices are held to a float64 reading of the same bytes. Build the
environment with ``tests/oracles/gptq/setup.sh`` (minutes).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from forq.formats.awq import format as awq
from forq.layers.kernels.reference import dequantise
from forq.layers.linear import QuantLinear
from forq.models.leaves import trainable
from forq.models.load import load
from tests import tiny_checkpoints
from tests.oracles.test_gptq_oracle import PYTHON, call
from tests.reference import awq as reference
from tests.repacked import repacked

CASES = ("llama-awq", "opt-awq")
OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "own-llama-tied": ("llama-tied", {"group_size": 32}),
    "own-biased-mixed": ("llama-biased", {"left": ("o_proj", "lm_head")}),
    "own-opt-row": ("opt", {"group_size": -1, "sym": True}),
    "own-shards-bfloat16": ("llama", {"shards": 3, "scale_dtype": torch.bfloat16}),
    "own-float32": ("llama", {"scale_dtype": torch.float32}),
}
LOSS, LOGITS = 2e-4, 5e-3
SAME_LOSS, SAME_LOGITS = 5e-5, 2e-3
IDS = tiny_checkpoints.ids(rows=3, length=40)

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-gptq: build it with tests/oracles/gptq/setup.sh"),
]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every case as made and as saved by us after a move of all that moves: the library's answer on both."""
    root = tmp_path_factory.mktemp("awq")
    call("make.py", root, *CASES)
    for name, (kind, how) in OWN.items():
        repacked(tiny_checkpoints.folder(root / f"float-{name}", kind, torch.float16), root / name, awq, **how)
    folders = []
    for name in (*CASES, *OWN):
        model, draw, moved = load(root / name, device="cpu"), torch.Generator().manual_seed(0), {}
        for leaf in trainable(model, "scales,codes,zeros"):
            here = leaf.read()
            if leaf.group == "scales":
                moved[leaf.name] = here * (1 + 0.05 * torch.randn(here.shape, generator=draw))
                continue
            leaf.write((here + torch.randint(-1, 2, here.shape, generator=draw)).clamp(*leaf.range))
            moved[leaf.name] = leaf.packed(leaf.storage if leaf.group == "codes" else leaf.read())
        model.checkpoint.save_patched(root / f"{name}-moved", moved)
        folders += [root / name, root / f"{name}-moved"]
    lines = call("loss.py", *folders, stdin=json.dumps(IDS.tolist())).splitlines()
    answers = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    return {Path(answer["folder"]).name: answer for answer in answers}


def ours(folder: str) -> tuple[float, torch.Tensor]:
    logits = load(folder, device="cpu")(IDS).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).item(), logits[:, -1]


@pytest.mark.parametrize("moved", ["", "-moved"])
@pytest.mark.parametrize("case", [*CASES, *OWN])
def test_the_library_sees_the_model_we_see(
    case: str, moved: str, theirs: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, compared: Any
) -> None:
    answer = theirs[case + moved]
    want = torch.tensor(answer["logits"])
    loss, logits = ours(answer["folder"])
    compared("gptqmodel (AWQ)", "loss, its rounding not imitated; nats", abs(loss - answer["loss"]))
    assert abs(loss - answer["loss"]) < LOSS
    assert (logits - want).abs().max() < LOGITS * want.abs().max()

    def rounded(layer: QuantLinear, x: torch.Tensor) -> torch.Tensor:
        y = linear(x.half().float(), dequantise(layer.weight, layer.scales.half().float()).half().float()).half()
        return (y if layer.bias is None else y + layer.bias.half()).float()

    monkeypatch.setattr(QuantLinear, "forward", rounded)
    loss, logits = ours(answer["folder"])
    compared("gptqmodel (AWQ)", "loss, its rounding imitated; nats", abs(loss - answer["loss"]))
    assert abs(loss - answer["loss"]) < SAME_LOSS
    assert (logits - want).abs().max() < SAME_LOGITS * want.abs().max()


@pytest.mark.parametrize("moved", ["", "-moved"])
@pytest.mark.parametrize("case", [*CASES, *OWN])
def test_dequantised_matrices_are_those_of_the_bytes(case: str, moved: str, theirs: dict[str, dict[str, Any]]) -> None:
    folder = Path(theirs[case + moved]["folder"])
    model, found = load(folder, device="cpu"), reference.modules(folder)
    assert found
    for module in found:
        want = reference.dequantise(folder, module)
        mine = model.get_submodule(module).dequantise().double().numpy()
        assert np.abs(mine - want).max() <= 1e-6 * np.abs(want).max()


@pytest.mark.parametrize("case", [*CASES, *OWN])
def test_the_move_is_seen_by_the_library(case: str, theirs: dict[str, dict[str, Any]]) -> None:
    here, there = theirs[case], theirs[f"{case}-moved"]
    assert (torch.tensor(here["logits"]) - torch.tensor(there["logits"])).abs().max() > 0.01
