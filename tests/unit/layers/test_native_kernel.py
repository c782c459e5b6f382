"""The native kernel: the reference kernel's weights bit for bit, its products, and what happens without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from forq.checkpoints.containers.gguf.kinds import BY_NAME
from forq.coordinates.leaf import SparseCodes
from forq.errors import ConfigError
from forq.formats.codecs.gguf_blocks import Blocks
from forq.layers.kernels import reference
from forq.layers.kernels.fill import fill_rows
from forq.layers.kernels.native import build
from forq.layers.kernels.native import matmul as native
from forq.layers.kernels.native.fill import fill_blocks, fill_codes, unfit
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight, zeros_dtype
from forq.models.load import load
from forq.models.quantized import kernels
from tests.fixtures import gguf as made
from tests.fixtures import onnx

CPU = torch.device("cpu")
KINDS = ("Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")

needs_compiler = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))


def in_blocks(name: str, rows: int, count: int) -> tuple[Blocks, list[torch.Tensor]]:
    """A random matrix of ``count`` blocks a row, and its live tensors: of every size, and with zeros."""
    kind, draw = BY_NAME[name], torch.Generator().manual_seed(rows)
    fields = {field.name: field for field in kind.fields}

    def integers(field: str) -> torch.Tensor:
        raw = torch.randint(0, 256, (rows, count, fields[field].count), dtype=torch.uint8, generator=draw)
        return raw.view(fields[field].dtype)

    live = [
        torch.randn(rows, count, generator=draw) * 10.0 ** torch.randint(-7, 4, (rows, count), generator=draw)
        for _ in kind.live
    ]
    live[0][0, 0] = 0.0
    return Blocks(kind, integers("qs"), integers("scales") if "scales" in fields else None), live


def of_codes(bits: int, group: int, columns: int, zeros: str, rows: int = 21) -> tuple[QuantWeight, torch.Tensor]:
    draw = torch.Generator().manual_seed(bits + group + columns)
    groups = -(-columns // group)
    codes = torch.randint(0, 256, (rows, columns * bits // 8), dtype=torch.uint8, generator=draw)
    middle = 1 << bits - 1
    points = torch.randint(0, 2 * middle, (groups, rows), generator=draw) if zeros != "same" else torch.tensor(middle)
    dtype = torch.float32 if zeros == "float" else zeros_dtype(bits)
    kept = (points + 0.3 if zeros == "float" else points).to(dtype).expand(groups, rows).contiguous()
    return QuantWeight(codes, kept, bits, group), torch.rand(groups, rows, generator=draw)


@needs_compiler
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("rows", "count"), [(1, 1), (7, 3), (64, 2)])
def test_a_matrix_in_blocks_is_the_references_bit_for_bit(name: str, rows: int, count: int) -> None:
    weight, live = in_blocks(name, rows, count)
    start, stop = rows // 3, rows
    want, got = (torch.full((stop - start, weight.in_features), torch.nan) for _ in range(2))
    weight.fill(live, start, stop, want, Scratch())
    fill_blocks(weight, live, start, stop, got)
    assert torch.equal(got, want) and unfit(weight, CPU) is None


@needs_compiler
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", ["same", "own", "float"])
@pytest.mark.parametrize(("group", "columns"), [(32, 96), (16, 16), (2, 10), (40, 96), (96, 96), (34, 136)])
def test_a_matrix_of_codes_is_the_references_bit_for_bit(bits: int, zeros: str, group: int, columns: int) -> None:
    weight, scales = of_codes(bits, group, columns, zeros)
    by_row = scales.t().contiguous()
    want, got = (torch.full((16, columns), torch.nan) for _ in range(2))
    fill_rows(weight, by_row, 5, 21, want, Scratch())
    fill_codes(weight, by_row, 5, 21, got)
    assert torch.equal(got, want) and unfit(weight, CPU) is None


@needs_compiler
@pytest.mark.parametrize("tokens", [0, 1, 16, 65, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_the_references(tokens: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forq.layers.kernels.native.matmul._BYTES_FOR_FEW", 4 * 256 * 9)  # several blocks
    x = torch.randn(tokens, 2, 256, generator=torch.Generator().manual_seed(tokens)).to(dtype)
    bias = torch.arange(50.0)
    weight, live = in_blocks("Q6_K", 50, 1)
    live = [tensor.clamp(-1, 1) for tensor in live]
    close(native.matmul_rows(x, weight, live, bias, Scratch()), reference.matmul_rows(x, weight, live, bias, Scratch()))
    for bits in (4, 8):
        of, scales = of_codes(bits, 32, 256, "own", 50)
        places = torch.tensor([0, 255, 256, 9 * 256 + 3, 50 * 256 - 1])
        for sparse in (None, SparseCodes(places, torch.arange(5, dtype=torch.int32))):
            given = (x, of, scales, bias, Scratch(), sparse)
            close(native.matmul(*given), reference.matmul(*given))


@needs_compiler
def test_gradients_are_refused_and_not_dropped() -> None:
    weight, live = in_blocks("Q4_K", 8, 1)
    x = torch.zeros(1, 256)
    with pytest.raises(RuntimeError, match="forward only"):
        native.matmul_rows(x, weight, [live[0].requires_grad_(), live[1]], None, Scratch())
    of, scales = of_codes(4, 32, 256, "same")
    with pytest.raises(RuntimeError, match="forward only"):
        native.matmul(x.requires_grad_(), of, scales, None, Scratch())


@needs_compiler
def test_c_never_reads_beyond_what_there_is() -> None:
    weight, live = in_blocks("Q4_K", 8, 1)
    x = torch.zeros(1, 256)
    assert torch.equal(native.matmul_rows(x, weight, [one.half() for one in live], None, Scratch()), torch.zeros(1, 8))
    with pytest.raises(RuntimeError, match=r"expected 8 numbers of torch\.float32"):
        native.matmul_rows(x, weight, [live[0], live[1][:7]], None, Scratch())
    assert weight.factors is not None
    for short in (
        replace(weight, codes=weight.codes[..., :127].contiguous()),
        replace(weight, factors=weight.factors[..., :11].contiguous()),
        replace(weight, factors=None),
    ):
        with pytest.raises(RuntimeError, match="native kernel"):
            native.matmul_rows(x, short, live, None, Scratch())
    of, scales = of_codes(8, 32, 256, "own")
    with pytest.raises(RuntimeError, match="native kernel"):
        native.matmul(x, of, scales[:3], None, Scratch())


@needs_compiler
def test_what_it_cannot_compute() -> None:
    other = Blocks(
        BY_NAME["IQ4_XS"], torch.zeros(1, 1, 128, dtype=torch.uint8), torch.zeros(1, 1, 6, dtype=torch.uint8)
    )
    assert "Q4_K" in str(unfit(other, CPU))
    three = QuantWeight(torch.zeros(4, 12, dtype=torch.uint8), torch.zeros(1, 4, dtype=torch.int8), 3, 32)
    assert "4 or 8 bits" in str(unfit(three, CPU))
    odd, _ = of_codes(4, 3, 96, "same")
    assert "groups" in str(unfit(odd, CPU)) and "CPU" in str(unfit(odd, torch.device("meta")))


@needs_compiler
def test_auto_takes_it_and_logits_are_the_references(tmp_path: Path) -> None:
    base = made.example(tmp_path / "base")
    model, plain = load(base, "cpu"), load(base, "cpu", kernel="reference")
    assert "native" in kernels(model) and set(kernels(plain)) == {"reference"} and model.unlike == plain.unlike
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        got, want = (one(ids).logits for one in (model, plain))  # type: ignore[operator]
    assert (got - want).abs().max() < 1e-5 * want.abs().max()


_LOADS = """
import sys
from forq.models.load import load
from forq.models.quantized import kernels
model = load(sys.argv[1], "cpu")
print(sorted(kernels(model)), *model.unlike)
"""

_MISSING = "from forq.layers.kernels.native import build\nprint(build.missing())"


@pytest.mark.parametrize(
    ("command", "why"), [("false", "false cannot compile rows.c"), ("/nowhere/cc", "No such file")]
)
def test_without_a_compiler_the_reference_computes_and_the_reason_is_given(
    command: str, why: str, tmp_path: Path
) -> None:
    base = made.example(tmp_path / "base")
    found = run([_LOADS, str(base)], CC=command, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert "native" not in found and "reference" in found and "plain torch" in found and why in found


def test_asked_for_without_a_compiler_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = made.example(tmp_path / "base")
    monkeypatch.setattr("forq.layers.kernels.native.fill.missing", lambda: "a C compiler is needed")
    with pytest.raises(ConfigError, match=r"^kernel native: .*a C compiler is needed; take auto or reference"):
        load(base, "cpu", kernel="native")


_STARTS_NONE = """
import sys, torch
from forq.checkpoints import Checkpoint
from forq.inspection.memory import summary
from forq.models.load import load
from forq.models.options import LoadOptions
from forq.models.quantized import slower
print(summary(Checkpoint.open(sys.argv[1])).peak_bytes)
model = load(sys.argv[1], "cpu", kernel="reference")
print(slower(model, LoadOptions(torch.device("cuda"), torch.float32, "auto", "float")))
"""


def test_neither_inspect_nor_a_model_on_a_gpu_starts_a_compiler(tmp_path: Path) -> None:
    base, compiler, started = made.example(tmp_path / "base"), tmp_path / "cc", tmp_path / "started"
    compiler.write_text(f"#!/bin/sh\ntouch '{started}'\nexit 1\n")
    compiler.chmod(0o755)
    env = {"CC": str(compiler), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    peak, sentences = run([_STARTS_NONE, str(base)], **env).splitlines()
    assert int(peak) > 0 and sentences == "()" and not started.exists()
    assert "cannot compile" in run([_MISSING], **env) and started.exists()


def test_a_graph_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected --kernel auto or ort .*found native"):
        load(onnx.example(tmp_path / "graph"), "cpu", kernel="native")


@needs_compiler
def test_the_library_is_compiled_once_and_not_loaded_where_another_could_have_written_it(tmp_path: Path) -> None:
    assert run([_MISSING], XDG_CACHE_HOME=str(tmp_path)) == "None"
    (file,) = (tmp_path / "forq").iterdir()
    before = file.stat().st_mtime_ns
    assert run([_MISSING], XDG_CACHE_HOME=str(tmp_path)) == "None" and file.stat().st_mtime_ns == before
    file.chmod(0o777)
    assert f"{file} could have been written by another user" in run([_MISSING], XDG_CACHE_HOME=str(tmp_path))


@needs_compiler
def test_a_umask_that_lets_a_group_write_is_no_hindrance(tmp_path: Path) -> None:
    folder = tmp_path / "forq"  # as other code makes it under such a umask
    folder.mkdir()
    folder.chmod(0o775)
    assert run([_MISSING], umask=0o002, XDG_CACHE_HOME=str(tmp_path)) == "None"
    (file,) = folder.iterdir()
    assert (file.stat().st_mode | folder.stat().st_mode) & 0o022 == 0


@needs_compiler
def test_a_processor_of_another_kind_gets_a_file_of_its_own(tmp_path: Path) -> None:
    for machine in ("this", "that"):
        assert run(
            [f"import platform\nplatform.machine = lambda: {machine!r}\n{_MISSING}"], XDG_CACHE_HOME=str(tmp_path)
        )
    assert len(list((tmp_path / "forq").iterdir())) == 2


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"CC": "cc '"}, "expected a command in $CC"),
        ({"HOME": "~", "XDG_CACHE_HOME": "", "CC": "false"}, "home directory"),
    ],
)
def test_no_setting_of_a_machine_fails_more_than_the_kernel(env: dict[str, str], why: str) -> None:
    assert why in run([_MISSING], **env)


def test_a_compilers_messages_may_be_in_any_encoding(tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nprintf 'Datei nicht lesbar: \\374\\n' >&2\nexit 1\n")
    compiler.chmod(0o755)
    assert "Datei nicht lesbar" in run([_MISSING], CC=str(compiler), XDG_CACHE_HOME=str(tmp_path), PYTHONUTF8="1")


def run(words: Sequence[str], umask: int = -1, **env: str) -> str:
    done: Any = subprocess.run(
        [sys.executable, "-c", *words], env=os.environ | env, capture_output=True, text=True, check=True, umask=umask
    )
    return str(done.stdout).strip()


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.shape == want.shape and got.dtype == want.dtype
    if want.numel():
        assert (got - want).abs().max() <= (1e-5 if want.dtype == torch.float32 else 0.02) * want.abs().max()
