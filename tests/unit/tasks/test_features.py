"""The distance of pictures in the features of a network, and networks as users have them."""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, save

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, DataError, FormatError, RunError
from forq.models.diffusion.encoders import Encoders
from forq.models.load import load
from forq.tasks import Compares, text_to_image
from forq.tasks.images.pictures import pixels
from forq.tasks.kinds import features as _features
from forq.tasks.kinds.features import Features, distance
from tests import tiny_pipeline

CODE = """
import numpy as np
import torch
def grey(x):
    assert x.dtype == np.float32 and x.shape[1:] == (3, 28, 28) and 0 <= x.min() <= x.max() <= 1
    return torch.from_numpy(x).mean(1).flatten(1).requires_grad_()
def scores(x): return x.mean((1, 2, 3))
def one_row(x): return x.reshape(1, -1)
def gram(x): return x.reshape(len(x), -1) @ x.reshape(len(x), -1).T
def nan(x): return np.full((len(x), 2), np.nan)
def empty(x): return np.zeros((len(x), 0))
def words(x): return "features"
def broken(x): raise RuntimeError("out of memory")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def flattened(path, shape, dtype=TensorProto.FLOAT):
    """An ONNX file whose features are the numbers of its pictures as it sees them."""
    nodes = [
        helper.make_node("Cast", ["pictures"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["cast"], ["features"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "flat", [value("pictures", dtype, shape)], [value("features", TensorProto.FLOAT, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    save(model, path)
    return str(path)


def plain(x: np.ndarray, y: np.ndarray) -> float:
    """The paper's sums, pair by pair."""

    def k(a, b):
        return (sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def mean(pairs):
        found = [k(a, b) for a, b in pairs]
        return sum(found) / len(found)

    return mean(itertools.permutations(x, 2)) + mean(itertools.permutations(y, 2)) - 2 * mean(itertools.product(x, y))


def test_the_distance_is_the_papers_sum_in_pieces_of_any_size(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(1, 2, size=(7, 3))
    whole = distance(torch.from_numpy(x), torch.from_numpy(y))
    assert whole.value == pytest.approx(plain(x, y), rel=1e-12)
    monkeypatch.setattr(_features, "ROWS_AT_ONCE", 2)
    pieces = distance(torch.from_numpy(x), torch.from_numpy(y))
    assert (pieces.value, pieces.error) == pytest.approx((whole.value, whole.error), rel=1e-12)


def test_the_distance_of_one_law_is_0_on_average_and_so_at_times_below():
    """Every draw of two and three points of a law of two, each as likely as the other."""
    points = torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    found = [
        distance(points[list(where[:2])], points[list(where[2:])]).value
        for where in itertools.product((0, 1), repeat=5)
    ]
    assert sum(found) / len(found) == pytest.approx(0, abs=1e-12)
    assert min(found) < -0.1 < 0.1 < max(found)


def test_the_error_is_what_other_draws_change():
    draws = torch.randn(400, 80, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [distance(1.5 * draw[:30], draw[30:]) for draw in draws]
    spread = torch.tensor([one.value for one in found]).std()
    assert sum(one.error for one in found) / len(found) == pytest.approx(float(spread), rel=0.15)


def test_a_file_is_shown_what_its_input_says(place):
    torch.manual_seed(0)
    seen = torch.randint(0, 256, (5, 3, 28, 28)) / 255
    close = {"rtol": 0, "atol": 1e-6}
    rgb = Features.open(flattened("open.onnx", ["n", "c", "h", "w"]))
    torch.testing.assert_close(rgb(seen), seen.double().flatten(1), **close)
    grey = Features.open(flattened("grey.onnx", ["n", 1, 28, 28]))
    torch.testing.assert_close(grey(seen), seen.mean(1).double().flatten(1), **close)
    two = Features.open(flattened("two.onnx", [2, 3, 28, 28]))  # batches of two alone
    torch.testing.assert_close(two(seen), rgb(seen), **close)
    levels = Features.open(flattened("bytes.onnx", ["n", 28, 28, 3], TensorProto.UINT8))
    torch.testing.assert_close(levels(seen), seen.permute(0, 2, 3, 1).double().flatten(1) * 255, rtol=0, atol=1e-4)
    first = Features.open(flattened("first.onnx", ["n", 1, 28, 28], TensorProto.UINT8))
    assert (first(seen) - seen.mean(1).double().flatten(1) * 255).abs().max() <= 0.5 + 1e-3
    half = Features.open(flattened("half.onnx", ["n", 3, 14, 14]))
    assert half(torch.full((2, 3, 28, 28), 51 / 255)).tolist() == pytest.approx(np.full((2, 588), 0.2))
    torch.testing.assert_close(Features.open("mine.py:grey")(seen), seen.mean(1).double().flatten(1), **close)


def test_an_exported_module_is_a_network_too(place):
    file = place / "grey.pt2"
    torch.export.save(torch.export.export(torch.nn.Flatten(), (torch.zeros(2, 1, 28, 28),)), file)
    found = Features.open(str(file))(torch.full((5, 3, 28, 28), 51 / 255))
    assert found.shape == (5, 784) and float(found.max()) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("gone.onnx", ConfigError, "task.features: there is no file gone.onnx"),
        ("net", ConfigError, r"task.features: expected model.onnx, model.pt2, module:function or file.py:function"),
        ("gone.py:grey", ConfigError, "task.features: there is no file gone.py"),
        ("net.pth", FormatError, "does not unpickle"),
        ("bad.onnx", FormatError, "cannot load it"),
        ("four.onnx", ConfigError, "1 or 3 channels, found 4"),
        ("mine.py:scores", ConfigError, r"expected features \(4, d\) of 4 pictures, found \(4,\)"),
        ("mine.py:one_row", ConfigError, r"found \(1, 9408\)"),
        ("mine.py:empty", ConfigError, r"found \(4, 0\)"),
        ("mine.py:nan", ConfigError, "found NaN"),
        ("mine.py:words", ConfigError, "failed on pictures"),
        ("mine.py:broken", ConfigError, r"failed on pictures float32 \(4, 3, 28, 28\): RuntimeError: out of memory"),
    ],
)
def test_a_network_that_cannot_be_is_refused(place, name, error, says):
    (place / "bad.onnx").write_bytes(b"no model")
    flattened("four.onnx", ["n", 4, 28, 28])
    with pytest.raises(error, match=says):
        Features.open(name)(torch.zeros(4, 3, 28, 28))


def test_every_batch_has_features_of_one_width(place):
    gram = Features.open("mine.py:gram")
    assert gram(torch.zeros(4, 3, 28, 28)).shape == (4, 4)
    with pytest.raises(ConfigError, match=r"expected features \(3, 4\) of 3 pictures, found \(3, 3\)"):
        gram(torch.zeros(3, 3, 28, 28))


def test_pictures_that_are_not_finite_are_not_the_networks_fault(place):
    with pytest.raises(RunError, match="the model drew"):
        Features.open("mine.py:grey")(torch.full((2, 3, 28, 28), torch.nan))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    return tiny_pipeline.save(tmp_path_factory.mktemp("pipeline") / "sd3")


def opened(pipeline, data, cache, **settings):
    encoded = Encoders(Checkpoint.open(pipeline), cache, torch.device("cpu"), pixels)
    told = {"resolution": 28, "text_tokens": tiny_pipeline.TEXT_TOKENS, "samples": 0, "sample_steps": 2} | settings
    return text_to_image.open(data, encoded, seed=0, **told)


def test_a_judge_draws_the_same_pictures_for_every_model_in_forwards_of_any_size(pipeline, place):
    data = tiny_pipeline.pictures(place / "pictures")
    told = {"features": "mine.py:grey", "feature_samples": 5}
    task = opened(pipeline, data, place / "cache", **told)
    assert isinstance(task, Compares)
    judge = task.judge("test")
    rows = task.rows["test"]
    assert judge.captions == [rows[n % 2].caption for n in range(5)] and len(rows) == 2
    assert judge.held_out[:, 0].tolist() == pytest.approx([int(row.path.stem) * 10 / 255 for row in rows])
    model, steps = load(pipeline), []
    found = judge.distance(model, steps.append)
    assert steps == [5] and judge.distance(model) == found
    pieces = opened(pipeline, data, place / "cache", **told, micro_batch=2).judge("test")
    assert pieces.distance(model, steps.append).value == pytest.approx(found.value, rel=1e-4)
    assert steps == [5, 2, 2, 1]
    drawn = task.encoded.draw(model, judge.captions, 0, 2, 28)
    assert found == distance(Features.open("mine.py:grey")(drawn), judge.held_out)
    with torch.no_grad():
        model.proj_out.weight.mul_(3)
    assert judge.distance(model) != found


def test_too_few_pictures_are_refused(pipeline, place):
    data = tiny_pipeline.pictures(place / "pictures")
    with pytest.raises(ConfigError, match=r"task\.feature_samples: expected 2 or more, found 1"):
        opened(pipeline, data, place / "cache", feature_samples=1)
    task = opened(pipeline, data, place / "cache", features="mine.py:grey", validation_rows=1)
    with pytest.raises(DataError, match="expected 2 pictures or more to compare with, found 1 in validation"):
        task.judge("validation")
    assert opened(pipeline, data, place / "cache").judge("test") is None


def test_digits_of_another_style_are_further_than_other_digits(tmp_path):
    """The data folder's MNIST network, grey: the features before its last layer."""
    data = Path(os.environ.get("FORQ_DATA", ""))
    if "FORQ_DATA" not in os.environ or not (data / "mnist-cnn").is_dir():
        pytest.skip("FORQ_DATA is not set or holds no mnist-cnn")
    pytest.importorskip("h5py")
    experiments = Path(__file__).parents[3] / "experiments"
    victims, digits = (
        module(path) for path in (experiments / "attack_victims.py", experiments / "diffusion" / "digits.py")
    )
    net = victims.mnist_cnn(data)
    net.dense[2] = torch.nn.ReLU()
    example = (torch.zeros(32, 1, 28, 28),)
    torch.export.save(torch.export.export(net, example), tmp_path / "mnist.pt2")
    features = Features.open(str(tmp_path / "mnist.pt2"))

    def seen(images):
        return features(images[:, None].expand(-1, 3, -1, -1))

    images = digits.test_digits(data)[0]
    some, others = images[:800:2], images[1:800:2]
    near, slanted, inverted = (
        distance(seen(shifted), seen(others)) for shifted in (some, digits.slanted(some), 1 - some)
    )
    assert near.value < 2 * near.error and slanted.value > 2 * slanted.error > abs(near.value)
    assert inverted.value - slanted.value > inverted.error + slanted.error


def module(path):
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found
