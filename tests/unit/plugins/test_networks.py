"""Files of ``torch.export`` are loaded without unpickling anything but tensors; a digest is of all weights."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from forq.attacks.victims import open_victim
from forq.checkpoints.containers.onnx import external
from forq.errors import FormatError
from forq.plugins.networks import Network, open_network


class Grey(torch.nn.Module):
    """The mean of a picture, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean(dim=(2, 3)) * self.weight


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    file = tmp_path / "grey.pt2"
    torch.export.save(torch.export.export(Grey(), (torch.zeros(2, 3, 8, 8),)), file)
    return file


def evil(file: Path, mark: Path) -> Path:
    """The same program, with a weight that is a pickle."""
    buffer = io.BytesIO()
    torch.save(Evil(mark), buffer)
    out = file.with_name("evil.pt2")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            body = old.read(name)
            if name.endswith("weights_config.json"):
                config = json.loads(body)
                for entry in config["config"].values():
                    entry["use_pickle"] = True
                body = json.dumps(config).encode()
            elif "/data/weights/" in name and not name.endswith(".json"):
                body = buffer.getvalue()
            new.writestr(name, body)
    return out


@pytest.mark.parametrize("asked", [{}, {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}])
def test_a_pickled_weight_is_refused_and_nothing_of_it_runs(
    asked: dict[str, str], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    before, load = dict(os.environ), torch.load
    with pytest.raises(FormatError, match=r"torch\.export cannot load it"):
        open_network(str(evil(exported, tmp_path / "mark")), "task.features", external.files)
    assert not (tmp_path / "mark").exists() and torch.load is load and dict(os.environ) == before
    assert open_network(str(exported), "task.features", external.files).predict is not None


def test_the_pickle_would_run_elsewhere(exported: Path, tmp_path: Path) -> None:
    """What the test above refuses is a danger: torch alone runs it."""
    with contextlib.suppress(Exception):
        torch.export.load(evil(exported, tmp_path / "mark"))
    assert (tmp_path / "mark").exists()


def graph_file(file: Path, where: str, weight: float, beside: bool = True) -> Path:
    """An ONNX network whose weights stand as an initialiser, in a Constant, or in a function of the file."""
    values = numpy_helper.from_array(np.full((3, 4), weight, np.float32), "w")
    if beside:
        values.CopyFrom(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 4]))
        values.data_location = TensorProto.EXTERNAL
        values.external_data.add(key="location", value=f"{file.name}.data")
        file.with_name(f"{file.name}.data").write_bytes(np.full((3, 4), weight, "<f4").tobytes())
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.add(name="value", type=AttributeProto.TENSOR).t.CopyFrom(values)
    functions = []
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["m"]), helper.make_node("Flatten", ["m"], ["f"])]
    if where == "function":
        body = [constant, helper.make_node("MatMul", ["a", "w"], ["b"])]
        functions.append(helper.make_function("own", "Product", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
        nodes.append(helper.make_node("Product", ["f"], ["y"], domain="own"))
    else:
        nodes += [constant] * (where == "constant")
        nodes.append(helper.make_node("MatMul", ["f", "w"], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "location", [x], [y], [values] if where == "initialiser" else [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    file.write_bytes(
        helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9).SerializeToString()
    )
    return file


@pytest.mark.parametrize("where", ["initialiser", "constant", "function"])
def test_the_digest_is_of_weights_beside_the_file_too(where: str, tmp_path: Path) -> None:
    file = graph_file(tmp_path / "m.onnx", where, 1.0)
    before, graph = opened(file), file.read_bytes()
    assert opened(file).digest == before.digest
    graph_file(file, where, 2.0)
    assert file.read_bytes() == graph and opened(file).digest != before.digest
    assert open_victim(str(file), floats=True)[1] == opened(file).digest
    other = graph_file(tmp_path / "n.onnx", where, 1.0)
    assert external.files(file) == ("m.onnx.data",) and external.files(other) == ("n.onnx.data",)


@pytest.mark.parametrize("where", ["initialiser", "constant"])
def test_the_digest_of_one_file_is_that_of_its_bytes(where: str, tmp_path: Path) -> None:
    file = graph_file(tmp_path / "m.onnx", where, 1.0, beside=False)
    assert opened(file).digest == hashlib.sha256(file.read_bytes()).hexdigest() and external.files(file) == ()


def test_weights_beside_what_a_link_points_to(tmp_path: Path) -> None:
    """Files of a hub snapshot are links; where each is one, the data are found either way."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    file = graph_file(tmp_path / "blobs" / "m.onnx", "initialiser", 1.0)
    link = tmp_path / "snapshot" / "m.onnx"
    link.symlink_to(file)
    link.with_name("m.onnx.data").symlink_to(file.with_name("m.onnx.data"))
    assert opened(link).digest == opened(file).digest


def opened(file: Path) -> Network:
    return open_network(str(file), "VICTIM", external.files)
