"""forq attack: victims and images as users have them, and messages where something is wrong."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, load, save
from PIL import Image

from forq.attacks import labels as _labels
from forq.attacks.images import png, read_png
from forq.errors import DataError
from tests.attacked import images

CODE = """
import numpy as np
def predict(batch):
    m = batch.shape[2] // 2
    return np.stack([batch[:, :, :m].mean((1, 2, 3)), batch[:, :, m:].mean((1, 2, 3))], axis=1)
def broken(batch):
    raise RuntimeError("out of memory")
def interrupted(batch):
    raise KeyboardInterrupt
"""


class Halves(torch.nn.Module):
    def forward(self, x):
        middle = x.shape[3] // 2
        return torch.stack([x[..., :middle].mean((1, 2, 3)), x[..., middle:].mean((1, 2, 3))], dim=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A torch.export file for batches of four."""
    path = tmp_path_factory.mktemp("exported") / "halves.pt2"
    torch.export.save(torch.export.export(Halves(), (torch.zeros(4, 3, 8, 8),)), path)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = images(6, gap=2)
    np.savez("data.npz", images=x, labels=y)
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def onnx(path, dtype=TensorProto.FLOAT, batch="n"):
    """Scores = mean of an image's left half and of its right half, as one matrix product."""
    weights = np.zeros((3, 8, 8, 2), np.float32)
    weights[:, :, :4, 0] = weights[:, :, 4:, 1] = 1 / 96
    nodes = [
        helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["cast", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
    ]
    constants = [
        helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 192]),
        helper.make_tensor("weights", TensorProto.FLOAT, [192, 2], weights.reshape(-1)),
    ]
    graph = helper.make_graph(
        nodes,
        "halves",
        [helper.make_tensor_value_info("images", dtype, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    save(model, path)
    return path


def test_every_kind_of_victim_can_be_attacked(place, exported, forq):
    onnx("float.onnx")
    onnx("bytes.onnx", TensorProto.UINT8)
    onnx("five.onnx", batch=5)
    found = {}
    for victim, form in (
        ("mine.py:predict", "uint8"),
        ("mine:predict", "uint8"),
        ("float.onnx", "float"),
        ("five.onnx", "float"),
        ("bytes.onnx", "uint8"),
        (exported, "float"),
    ):
        out = place / f"{form}-{len(found)}"
        done = forq("attack", victim, "--images", "data.npz", "--input", form, "--budget", 300, "--out", out, "--json")
        assert done.returncode == 0, (victim, done.stderr)
        said = json.loads(done.stdout)
        assert said["success"] == said["correct"] == 6 and said["norms_of_success"]["linf_max"] <= 8
        assert (out / "picture.png").stat().st_size > 500 and (out / "summary.json").exists()
        found[victim] = {path.name: path.read_bytes() for path in (out / "adversarial").iterdir()}
    assert len(found["mine:predict"]) == 6
    assert found["mine:predict"] == found["mine.py:predict"]  # the others round their sums in another order


def test_a_folder_of_pngs(place, forq):
    with np.load("data.npz") as data:
        x, y = data["images"], data["labels"]
    folder = place / "pngs"
    folder.mkdir()
    for i, image in enumerate(x):
        (folder / f"{i}.png").write_bytes(png(image))
    (place / "y.csv").write_text(
        "file,label\n" + "".join(f"{i}.png,{label}\n" for i, label in reversed([*enumerate(y)]))
    )
    (place / "y.json").write_text(json.dumps([int(label) for label in y]))
    np.save(place / "y.npy", y)
    words = ("attack", "mine.py:predict", "--images", folder, "--budget", 300)
    outs = []
    for labels in ("y.csv", "y.json", "y.npy"):
        done = forq(*words, "--labels", labels, "--out", labels.replace(".", "-"))
        assert done.returncode == 0 and "adversarial          6 of 6" in done.stdout, done.stderr
        outs.append((place / labels.replace(".", "-") / "results.jsonl").read_text())
    assert outs[0] == outs[1] == outs[2]
    assert (read_png(folder / "0.png") == x[0]).all()
    done = forq(*words, "--out", "z")
    assert done.returncode == 1 and "needs a file with labels" in done.stderr


def test_an_image_that_is_no_png_is_named(place, forq):
    folder = place / "pngs"
    folder.mkdir()
    with np.load("data.npz") as data:
        (folder / "0.png").write_bytes(png(data["images"][0]))
        Image.fromarray(data["images"][1]).save(folder / "1.jpg")
    (folder / "._0.png").write_bytes(b"left behind")
    (place / "y.json").write_text('{"0.png": 0, "1.jpg": 0}')
    done = forq("attack", "mine.py:predict", "--images", folder, "--labels", "y.json", "--out", "z")
    assert done.returncode == 1 and "1.jpg: expected a PNG" in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("y.csv", "file,label\n0.png,1\n0.png,0\n", "line 3: expected each file once"),
        ("y.csv", "file,label\n0.png,1,7\n", "line 2: expected 2 fields"),
        ("y.csv", "file,label\n0.png,cat\n", "line 2: expected a label that is a whole number, found 'cat'"),
        ("y.csv", "file,label\n0.png,1.0\n", "found '1.0'"),
        ("y.csv", "name,label\n0.png,1\n", "expected the columns file and label, found name, label"),
        ("y.json", '{"0.png": 1, "0.png": 0}', "the key '0.png' stands twice"),
        ("y.json", '{"1.png": 1}', "no label for 0.png"),
        ("y.txt", "1", "expected labels as .csv, .json, .npy or .npz, found '.txt'"),
    ],
)
def test_labels_are_read_strictly(name, text, says, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=re.escape(says)):
        _labels.read(tmp_path / name, ["0.png"])


def test_labels_of_a_table_may_name_more_files(tmp_path):
    (tmp_path / "y.CSV").write_bytes(b"\xef\xbb\xbffile,label\r\n1.png,7\r\n0.png,3\r\n")
    assert _labels.read(tmp_path / "y.CSV", ["0.png"]).tolist() == [3]


def test_after_ctrl_c_it_says_where_the_results_are(place, forq):
    done = forq("attack", "mine.py:interrupted", "--images", "data.npz", "--out", "attack")
    assert done.returncode == 130 and "done are in attack. Go on with the same" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("mine.py:broken",), "out of memory (0 of 6 images done, 6 queries spent"),
        (("mine.py:nothing",), "has no function"),
        (("nothing",), "module:function"),
        (("gone.onnx",), "there is no file"),
        (("bad.onnx",), "cannot load it"),
        (("bad.pt2",), "not a torch.export archive"),
        (("model.pth",), "does not unpickle"),
        (("float.onnx",), "add --input float"),
        (("mine.py:predict", "--threads", "2"), "only an .onnx network takes a number of threads, found 2"),
        (("mine.py:predict", "--budget", "0"), "at least 1"),
        (("mine.py:predict", "--eps", "300"), "at most 255"),
        (("mine.py:predict", "--set", "share"), "key=value"),
        (("mine.py:predict", "--images", "objects.npz"), "expected a plain array of"),
        (("mine.py:predict", "--images", "floats.npz"), "expected uint8"),
        (("mine.py:predict", "--images", "none.npz"), "no such file"),
        (("mine.py:predict", "--labels", "bad.json"), "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(place, forq, words, says):
    onnx("float.onnx")
    (place / "bad.onnx").write_bytes(b"no model")
    (place / "bad.pt2").write_bytes(b"no model")
    (place / "bad.json").write_text("{")
    np.savez("floats.npz", images=np.zeros((1, 4, 4, 3)), labels=[0])
    np.savez("objects.npz", images=np.array([{}], dtype=object), labels=[0])
    done = forq("attack", "--images", "data.npz", "--out", "run", *words)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_an_exported_file_runs_no_code_of_its_own(place, exported, forq):
    """A pickle hidden in a torch.export archive is refused, not run."""
    import zipfile

    class Trap:
        def __reduce__(self):
            return (open, ("sprung", "w"))

    with zipfile.ZipFile(exported) as good, zipfile.ZipFile("trap.pt2", "w") as bad:
        for name in good.namelist():
            hide = "sample_inputs" in name or name.endswith(".pt")
            bad.writestr(name, pickle.dumps(Trap()) if hide else good.read(name))
    done = forq("attack", "trap.pt2", "--images", "data.npz", "--input", "float", "--out", "run")
    assert not (place / "sprung").exists()
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_the_curve_is_drawn_where_matplotlib_is(place, forq):
    pytest.importorskip("matplotlib")
    done = forq("attack", "mine.py:predict", "--images", "data.npz", "--out", "run", "--budget", 300)
    assert done.returncode == 0 and (place / "run" / "curve.png").stat().st_size > 1000


def _with_features(name: str) -> None:
    """A victim whose first output are 192 features, of which the second makes its scores."""
    model = load(onnx("one.onnx"))
    feat = helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", 192])
    model.graph.output.insert(0, feat)
    save(model, name)


def test_of_several_outputs_one_is_named(place, forq):
    _with_features("two.onnx")
    words = ("--images", "data.npz", "--input", "float", "--budget", 300, "--json")
    done = forq("attack", "two.onnx", *words, "--out", "a")
    assert done.returncode == 1
    assert "two.onnx: expected one output, found flat, scores: name the one that holds the scores" in done.stderr
    done = forq("attack", "two.onnx", *words, "--output", "logits", "--out", "a")
    assert done.returncode == 1 and "an output called 'logits', found flat, scores" in done.stderr
    assert not (place / "a").exists()
    named = forq("attack", "two.onnx", *words, "--output", "scores", "--out", "a")
    plain = forq("attack", "one.onnx", *words, "--out", "b")
    one, two = json.loads(named.stdout), json.loads(plain.stdout)
    assert one["success"] == two["success"] == 6 and one["queries"] == two["queries"]
    assert json.loads((place / "a" / "settings.json").read_text())["victim"]["output"] == "scores"
    assert "output" not in json.loads((place / "b" / "settings.json").read_text())["victim"]
    done = forq("attack", "mine.py:predict", "--images", "data.npz", "--output", "scores", "--out", "c")
    assert done.returncode == 1 and "a Python function has one output" in done.stderr


class Two(Halves):
    def forward(self, x):
        return {"feat": x.flatten(1), "scores": super().forward(x)}


def test_of_an_exported_program_too(place, forq):
    torch.export.save(torch.export.export(Two(), (torch.zeros(4, 3, 8, 8),)), "two.pt2")
    words = ("attack", "two.pt2", "--images", "data.npz", "--input", "float", "--budget", 300, "--json")
    done = forq(*words, "--out", "a")
    assert done.returncode == 1 and "expected one output, found" in done.stderr
    names = done.stderr.replace("\n", " ").partition("found ")[2].partition(":")[0].split(", ")
    done = forq(*words, "--output", names[1], "--out", "a")
    assert done.returncode == 0 and json.loads(done.stdout)["success"] == 6, done.stderr


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (("labels",), ""),
        (("labels", "names"), ""),
        (("whatever",), ""),
        (("a", "b"), "expected an array 'labels', or one array alone, found a, b"),
        ((), "or one array alone, found none"),
    ],
)
def test_labels_of_an_npz(place, forq, held, said):
    with np.load("data.npz") as data:
        x, y = data["images"], data["labels"]
    np.savez("images.npz", images=x)
    np.savez("y.npz", **{name: y if name != "names" else np.zeros(2) for name in held})
    words = ("attack", "mine.py:predict", "--images", "images.npz", "--budget", 300)
    done = forq(*words, "--labels", "y.npz", "--out", "out")
    assert (done.returncode, said in done.stderr) == (1 if said else 0, True), done.stderr
    assert said or "adversarial          6 of 6" in done.stdout
