"""ONNX graphs: plain onnxruntime gives our numbers, caches are left empty, what lies elsewhere is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, FormatError
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.positions import positions
from forq.models.saved import write
from forq.tasks.kinds.generate import written
from forq.tasks.objectives import losses
from forq.tokens.batches import Batch
from tests import tiny_encoders
from tests.fixtures import onnx as form
from tests.fixtures import onnx_int8 as form_int8

IDS = torch.randint(1, 64, (3, 9), generator=torch.Generator().manual_seed(3))


def plain(path: Path, ids: torch.Tensor, level: int | None = None) -> np.ndarray:
    """Logits by a session on the file alone."""
    model = onnx.load(str(path))
    for node in model.graph.node:
        for one in node.attribute:
            if one.name == "accuracy_level" and level is not None:
                one.i = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows, length = ids.shape
    given = {
        "input_ids": ids.numpy(),
        "attention_mask": np.ones((rows, length), np.int64),
        "position_ids": np.tile(np.arange(length), (rows, 1)),
    }
    wanted = {one.name for one in session.get_inputs()}
    logits: np.ndarray = session.run(["logits"], {name: value for name, value in given.items() if name in wanted})[0]
    return logits.astype(np.float32)


def changed(folder: Path, change: Any, **how: Any) -> Path:
    """An example with its graph changed."""
    path = form.example(folder, **how) / "model.onnx"
    model = onnx.load(str(path))
    change(model.graph)
    onnx.save_model(model, str(path))
    return folder


@pytest.mark.parametrize("variant", [None, *form.VARIANTS])
def test_plain_onnxruntime_gives_our_numbers_before_and_after_a_move(variant: str | None, tmp_path: Path) -> None:
    model: Any = load(form.example(tmp_path / "a", **form.VARIANTS.get(variant or "", {})), device="cpu")
    # Level 4 rounds activations, float16 products of the runtime what enters and leaves them.
    near = 2e-2 if variant == "float16" else 2e-5
    want = plain(tmp_path / "a" / "model.onnx", IDS, level=0)
    assert np.abs(model(IDS).logits.numpy() - want).max() < near * np.abs(want).max()
    moved = {}
    for leaf in trainable(model):
        moved[leaf.name] = (leaf.read() * 1.3).to(leaf.dtype)
        leaf.write(moved[leaf.name].float())
    write(model.checkpoint, moved, tmp_path / "b")
    there = plain(tmp_path / "b" / "model.onnx", IDS, level=0)
    assert np.abs(model(IDS).logits.numpy() - there).max() < near * np.abs(there).max()
    assert np.abs(there - want).max() > 10 * near * np.abs(want).max()


def test_a_level_that_rounds_is_told_and_kept(tmp_path: Path) -> None:
    model: Any = load(form.example(tmp_path / "a", accuracy_level=4), device="cpu")
    assert "accuracy_level 4" in model.unlike[0]
    write(model.checkpoint, {leaf.name: leaf.read() * 1.1 for leaf in trainable(model)}, tmp_path / "b")
    nodes = onnx.load(str(tmp_path / "b" / "model.onnx")).graph.node
    assert {a.i for node in nodes for a in node.attribute if a.name == "accuracy_level"} == {4}
    assert load(form.example(tmp_path / "c"), device="cpu").unlike == ()


def test_an_unscored_row_a_padded_one_and_pieces_give_the_same_losses(tmp_path: Path, monkeypatch: Any) -> None:
    model: Any = load(form.example(tmp_path / "a"), device="cpu")
    row, column = torch.tensor([0, 0, 2, 2]), torch.tensor([1, 7, 0, 3])
    batch = Batch(IDS[:, :8], row, column, IDS[row, column + 1], (2, 0, 2))
    with torch.inference_mode():
        whole = losses.token_nll(model, batch)
        monkeypatch.setattr("forq.models.graph.language_model.LOGITS_BYTES", 1)
        assert torch.equal(losses.token_nll(model, batch), whole)
    logits = torch.from_numpy(plain(tmp_path / "a" / "model.onnx", IDS))
    want = torch.nn.functional.cross_entropy(logits[row, column], IDS[row, column + 1], reduction="none")
    assert torch.allclose(whole, want, atol=1e-5)


def test_it_writes_what_its_logits_say(tmp_path: Path) -> None:
    model: Any = load(form.example(tmp_path / "a"), device="cpu")
    prompts = [[1, 5, 9], [2, 7, 7, 7, 3]]
    for prompt, text in zip(prompts, written(model, prompts, 4), strict=True):
        for token in text:
            logits = plain(tmp_path / "a" / "model.onnx", torch.tensor([prompt]))
            assert token == logits[0, -1].argmax()
            prompt = [*prompt, token]


def test_keys_and_values_of_what_came_before_are_given_empty(tmp_path: Path) -> None:
    def cached(graph: Any) -> None:
        """The first layer's keys behind those of a past, as exports with a cache have them."""
        past = helper.make_tensor_value_info("past_key_values.0.key", TensorProto.FLOAT, ["rows", 2, "past", 8])
        graph.input.append(past)
        for place, node in enumerate(graph.node):
            if node.op_type == "Tile":
                (some,) = (n for n in graph.node if n.output[0] == node.input[0])
                joined = helper.make_node("Concat", ["past_key_values.0.key", some.input[0]], ["present"], axis=2)
                some.input[0] = "present"
                graph.node.insert(place - 1, joined)
                break
        graph.output.append(helper.make_tensor_value_info("present", TensorProto.FLOAT, ["rows", 2, "all", 8]))

    with_cache, without = load(changed(tmp_path / "a", cached)), load(form.example(tmp_path / "b"))
    assert torch.equal(with_cache(IDS).logits, without(IDS).logits)


def test_a_folder_called_onnx_belongs_to_the_one_above(tmp_path: Path) -> None:
    form.example(tmp_path / "repo" / "onnx", external=True)
    (tmp_path / "repo" / "onnx" / "config.json").rename(tmp_path / "repo" / "config.json")
    (tmp_path / "repo" / "tokenizer.json").write_text("{}")
    (tmp_path / "repo" / "large.bin").write_bytes(b"another export")
    for source in (tmp_path / "repo", tmp_path / "repo" / "onnx" / "model.onnx"):
        model: Any = load(source)
        write(
            model.checkpoint,
            {leaf.name: leaf.read() * 1.1 for leaf in trainable(model)},
            tmp_path / "out",
            overwrite=True,
        )
        found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
        assert found == {"config.json", "tokenizer.json", "onnx/model.onnx", "onnx/model.onnx_data"}
        assert not torch.equal(load(tmp_path / "out")(IDS).logits, model(IDS).logits)


def test_without_a_configuration_the_graph_says_what_it_is(tmp_path: Path) -> None:
    (form.example(tmp_path / "a") / "config.json").unlink()
    model: Any = load(tmp_path / "a")
    assert model.checkpoint.config == {"model_type": "onnx"} and model.config.vocab_size == 64
    assert positions(model) is None
    (tmp_path / "a" / "genai_config.json").write_text(json.dumps({"model": {"context_length": 48, "type": "llama"}}))
    assert positions(load(tmp_path / "a")) == 48, "the positions of onnxruntime-genai's model"


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link", "nowhere", ""])
def test_external_data_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(1 << 16))
    path = form.example(tmp_path / "a", external=True) / "model.onnx"
    (tmp_path / "a" / "link").symlink_to(tmp_path / "secret")
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FormatError, match="external data"):
        Checkpoint.open(path)


@pytest.mark.parametrize("cut", [0, 1, 7, 100, 3000, -1])
def test_a_truncated_file_is_refused(cut: int, tmp_path: Path) -> None:
    path = form.example(tmp_path / "a") / "model.onnx"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FormatError):
        load(tmp_path / "a")


def _rename(graph: Any) -> None:
    graph.output[0].name = "last_hidden_state"


def _branch(graph: Any) -> None:
    graph.input.append(helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1]))


def _order(graph: Any) -> None:
    node = next(node for node in graph.node if node.op_type == "MatMulNBits")
    node.input.extend(["", node.input[1]])


def _size(graph: Any) -> None:
    node = next(node for node in graph.node if node.op_type == "MatMulNBits")
    next(one for one in node.attribute if one.name == "N").i += 1


def _none(graph: Any) -> None:
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            node.domain = "another"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_rename, "output of floats called logits"),
        (_branch, "use_cache_branch"),
        (_order, "g_idx"),
        (_size, r"of shape .* for 4 bits"),
        (_none, "expected MatMulNBits nodes"),
    ],
)
def test_graphs_that_are_not_read_are_refused_by_name(change: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=words):
        load(changed(tmp_path / "a", change))


@pytest.mark.parametrize("how", [{"kernel": "reference"}, {"dtype": torch.float16}, {"activations": "int8"}])
def test_settings_a_graph_leaves_no_room_for_are_refused(how: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ONNX model"):
        load(form.example(tmp_path / "a"), device="cpu", **how)


def test_two_graphs_in_a_folder_are_not_chosen_between(tmp_path: Path) -> None:
    folder = form.example(tmp_path / "a")
    (folder / "other.onnx").write_bytes((folder / "model.onnx").read_bytes())
    with pytest.raises(FormatError, match=r"expected model.safetensors"):
        load(folder)
    assert load(folder / "other.onnx")(IDS).logits.shape == (
        3,
        9,
        json.loads((folder / "config.json").read_text())["vocab_size"],
    )


@pytest.fixture(scope="module")
def masked_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model in dynamic int8, as optimum exports and quantizes it."""
    where = tmp_path_factory.mktemp("masked")
    made = tiny_encoders.model("distilbert", masked=True)
    made.set_attn_implementation("eager")

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.made = made

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.made(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits

    names = ["input_ids", "attention_mask", "logits"]
    axes = {name: {0: "rows", 1: "length"} for name in names}
    given = (IDS, torch.ones_like(IDS))
    how: dict[str, Any] = {"input_names": names[:2], "output_names": names[2:], "dynamic_axes": axes, "dynamo": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter needs onnxscript
        torch.onnx.export(Logits(), given, str(where / "float.onnx"), opset_version=17, **how)
    (where / "repo").mkdir()
    quantize_dynamic(where / "float.onnx", where / "repo" / "model_quantized.onnx", weight_type=QuantType.QInt8)
    made.config.save_pretrained(where / "repo")
    return where / "repo"


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("DistilBertForMaskedLM", "DistilBertForMaskedLM in config.json"),
        (None, "one whose logits depend on later tokens"),
        ("DistilBertForCausalLM", "one whose logits depend on later tokens"),
    ],
)
def test_a_masked_language_model_is_refused(masked_graph: Path, head: str | None, says: str) -> None:
    file = masked_graph / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "architectures": None if head is None else [head]}))
    with pytest.raises(FormatError, match=f"expected the graph of a causal language model, found {says}"):
        load(masked_graph, device="cpu")


def test_a_scale_for_the_whole_batch_makes_no_graph_look_ahead(tmp_path: Path) -> None:
    model: Any = load(form_int8.example(tmp_path / "a", integer=True, dtype="uint8", zeros=True), device="cpu")
    seen = [model(torch.tensor([[10, 20, last]])).logits[0, 0] for last in range(30, 60)]
    assert any(not torch.equal(seen[0], other) for other in seen), "a later token changes the scale of earlier ones"
    both = model(torch.tensor([[10, 20, last] for last in range(30, 60)])).logits[:, 0]
    assert (both - both[0]).abs().max() < 1e-4 * both.abs().max(), "in one batch it changes that of all rows alike"
