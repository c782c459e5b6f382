"""ResNet-20 in int8, quantized by onnxruntime, on the pictures of a worse camera: what a few labelled images win back.

    python experiments/edge.py run --data $FORQ_DATA --work FOLDER             # resumable; all cells
    python experiments/edge.py run … --only time                               # or some of it
    python experiments/edge.py table                                           # as Markdown

Every row of results/edge.jsonl is one `forq.tune` (`scales`, `codes`), one back-propagation through the same scales
(`ceiling`), or a measurement of time (`time`). All accuracies of a file are those of the file itself in a plain
session of onnxruntime (`forq.load` gives one as long as nothing is to move). The images are CIFAR-10's: the first
1,000 test images, and 200 or 1,000 of the 4,744 training images that did not calibrate the quantizer; a tenth of them
chooses the step that is saved.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edge_ceiling
import edge_table
import numpy as np
import torch
from attack_victims import cifar10, floats, resnet20
from edge_images import SHIFTS, Labels, Pixels, images, rows
from edge_table import SEEDS, TARGET, Row

import forq
from forq.runs.config import TaskConfig, complete
from forq.runs.journal import Line
from forq.runs.open_task import open_task
from forq.runs.run import Run

SCALE_STEPS, CODE_STEPS, BATCH = 40, 180, 64


def quantized(data: Path, work: Path) -> dict[str, Path]:
    """The two forms that onnxruntime's quantizer writes, made once, calibrated on 256 clean training images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.parts = iter(np.split(floats(cifar10(data, 0)[0][:256]), 8))

        def get_next(self) -> dict[str, Any] | None:
            part = next(self.parts, None)
            return None if part is None else {"images": part}

    files = {form: work / form / "model.onnx" for form in ("qdq", "operators")}
    if all(file.is_file() for file in files.values()):
        return files
    source, clean = work / "float.onnx", work / "clean.onnx"
    work.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter without further dependencies is called deprecated
        torch.onnx.export(
            resnet20(data), (torch.zeros(2, 3, 32, 32),), str(source), dynamic_axes={"images": {0: "n"}},
            dynamo=False, opset_version=17, input_names=["images"], output_names=["scores"],
        )  # fmt: skip
    quant_pre_process(str(source), str(clean))
    for form, how in (("qdq", QuantFormat.QDQ), ("operators", QuantFormat.QOperator)):
        files[form].parent.mkdir(exist_ok=True)
        quantize_static(
            str(clean), str(files[form]), Reader(), quant_format=how, per_channel=True,
            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
        )  # fmt: skip
    return files


def accuracy(file: Path, x: Pixels, y: Labels, *, fused: bool = True) -> float:
    """Of a file in a session of onnxruntime's own: a plain one, or one that fuses nothing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    right = 0
    for start in range(0, len(x), 200):
        (scores,) = session.run(None, {"images": floats(x[start : start + 200])})
        right += int((scores.argmax(axis=1) == y[start : start + 200]).sum())
    return right / len(x)


def tuned(job: Row, file: Path, data: Path, work: Path) -> Row:
    """One run of forq; the saved file is checked byte by byte outside of what may change, and by onnx."""
    import onnx

    path = rows(data, work, job["shift"], job["size"], job["images"], job["seed"])
    codes = job["what"] == "codes"
    steps = CODE_STEPS if codes else SCALE_STEPS
    out = work / "run"
    shutil.rmtree(out, ignore_errors=True)
    began = time.process_time()
    run = forq.tune(
        str(file), "classify-images", str(path), recipe="zoqo" if codes else "qzo-shared", steps=steps,
        eval_every=steps // 4, seed=job["seed"], out=out,
        settings={"task": {"batch_rows": BATCH}},
    )  # fmt: skip
    saved = out / "checkpoint" / file.name
    onnx.checker.check_model(onnx.load(str(saved)))
    _, (clean, labels) = images(data)
    result = run.result
    path.unlink()
    return {
        "shifted": result["test"]["before"]["accuracy"], "after": result["test"]["after"]["accuracy"],
        "clean_after": accuracy(saved, clean, labels),
        "forwards": result["forwards"], "step": result["step"], "session": run.model.training_session,
        "loss_trained": result["validation"]["after"]["loss"], "loss_served": result["served"]["loss"],
        "changed": changed(file, saved), "cpu_seconds": round(time.process_time() - began, 1),
    }  # fmt: skip


def changed(before: Path, after: Path) -> dict[str, int]:
    """How many tensors of each type changed; everything else of the file has to be the same.

    Raises:
        SystemExit: a node, a shape or anything else changed.
    """
    import onnx

    one, other = onnx.load(str(before)), onnx.load(str(after))
    counts: dict[str, int] = {}
    for was, now in zip(one.graph.initializer, other.graph.initializer, strict=True):
        if was.SerializeToString() != now.SerializeToString():
            kind = onnx.TensorProto.DataType.Name(was.data_type).lower()
            counts[kind] = counts.get(kind, 0) + 1
    for model in (one, other):
        del model.graph.initializer[:]
    if one.SerializeToString() != other.SerializeToString() or before.stat().st_size != after.stat().st_size:
        raise SystemExit(f"{after}: more than initialisers changed")
    return counts


def ceiling(job: Row, file: Path, data: Path, work: Path) -> Row:
    """Back-propagation through the same scales; the file that holds them is what is scored."""
    path = rows(data, work, job["shift"], job["size"], job["images"], job["seed"])
    with np.load(path) as arrays:
        given = {name: arrays[name] for name in arrays.files}
    path.unlink()
    net, began = edge_ceiling.Dequantised(file), time.process_time()
    x, y = floats(given["train_images"]), given["train_labels"]
    edge_ceiling.tuned(net, x, y, job["seed"], work / "ceiling")
    saved = work / "ceiling" / file.name
    _, (clean, labels) = images(data)
    return {
        "shifted": accuracy(file, given["test_images"], given["test_labels"]),
        "after": accuracy(saved, given["test_images"], given["test_labels"]),
        "clean_after": accuracy(saved, clean, labels),
        "steps": edge_ceiling.STEPS, "cpu_seconds": round(time.process_time() - began, 1),
    }  # fmt: skip


def times(job: Row, file: Path, data: Path, work: Path) -> Row:
    """CPU seconds of a batch in a plain session, in the session that trains, and unfused; and of a step of nine."""
    from forq.models.graph.session import Session
    from forq.models.space import space

    x = torch.from_numpy(floats(images(data)[1][0][:BATCH]))
    plain, live = forq.load(file, device="cpu"), forq.load(file, device="cpu")
    moves = space(live, "scales")
    found: dict[str, float] = {}

    def measured(name: str, call: Any, times: int) -> None:
        call()
        spent = []
        for _ in range(times):
            began = time.process_time()
            call()
            spent.append(time.process_time() - began)
        found[name] = round(float(np.median(spent)), 5)

    measured("plain", lambda: plain(x), 15)
    measured("training", lambda: live(x), 15)
    unfused = Session(live.checkpoint, {leaf.name for leaf in moves.leaves})
    shown = {layer.leaf_name: layer.scales for layer in live.layers}
    given = {live.images.name: np.ascontiguousarray(x.numpy())}
    measured("unfused", lambda: unfused.run(given, shown, "scores"), 15)
    found["step"] = step_time(file, data, work)
    return {
        **found,
        "step_is": "nine forwards of qzo-shared, images prepared, and the update",
        "session": live.training_session,
    }


def step_time(file: Path, data: Path, work: Path) -> float:
    """Processor seconds of a step of qzo-shared, the default: the median of a short run."""
    path, out = rows(data, work, "noise", 0.08, 200, 0), work / "timed"
    shutil.rmtree(out, ignore_errors=True)
    task = TaskConfig(name="classify-images", data=str(path), options={"batch_rows": BATCH})
    config = complete("qzo-shared", [], steps=12, eval_every=12, checkpoint=str(file), device="cpu", task=task)
    model = forq.load(file, device="cpu")
    begun = Run.begin(out, config, model, open_task(task, model, 0))
    path.unlink()
    spent, began = [], time.process_time()
    for event in begun.events():
        if isinstance(event, Line) and event.kind == "train":
            assert event.forwards == 9
            spent.append(time.process_time() - began)
        began = time.process_time()
    return round(float(np.median(spent[1:])), 5)


def jobs() -> Iterator[Row]:
    """All cells, those that say most first."""
    hardest = [(kind, sizes[-1]) for kind, sizes in SHIFTS.items()]
    others = [(kind, size) for kind, sizes in SHIFTS.items() for size in sizes[:-1]]
    yield {"what": "time", "form": "qdq"}
    yield {"what": "clean", "form": "qdq"}
    for seed in SEEDS:
        for kind, size in hardest:
            yield cell("scales", kind, size, 1000, seed)
            yield cell("scales", kind, size, 200, seed)
            yield cell("ceiling", kind, size, 1000, seed)
        if seed == SEEDS[0]:
            yield {"what": "clean", "form": "operators"}
            yield {"what": "time", "form": "operators"}
            for kind, size in hardest:
                yield cell("codes", kind, size, 1000, seed)
                yield cell("scales", kind, size, 1000, seed, "operators")
    for seed in SEEDS:
        for kind, size in others:
            yield cell("scales", kind, size, 1000, seed)
    for seed in SEEDS:
        for kind, size in others:
            yield cell("ceiling", kind, size, 1000, seed)
        for kind, size in hardest:
            yield cell("ceiling", kind, size, 200, seed)
    for seed in SEEDS[1:]:
        for kind, size in hardest:
            yield cell("codes", kind, size, 1000, seed)
    for seed in SEEDS:
        for kind, size in others:
            for what in ("scales", "ceiling", "codes"):
                yield cell(what, kind, size, 200, seed)
            yield cell("codes", kind, size, 1000, seed)
        for kind, size in hardest:
            yield cell("codes", kind, size, 200, seed)


def cell(what: str, kind: str, size: float, count: int, seed: int, form: str = "qdq") -> Row:
    return {"what": what, "form": form, "shift": kind, "size": size, "images": count, "seed": seed}


def measure(job: Row, data: Path, work: Path) -> Row:
    file = quantized(data, work)[job["form"]]
    if job["what"] == "clean":
        _, (x, y) = images(data)
        return {"accuracy": accuracy(file, x, y), "accuracy_unfused": accuracy(file, x, y, fused=False)}
    if job["what"] == "time":
        return times(job, file, data, work)
    return (ceiling if job["what"] == "ceiling" else tuned)(job, file, data, work)


def run(data: Path, work: Path, only: str | None, limit: float) -> None:
    torch.set_num_threads(1)
    command = " ".join(
        ["python experiments/edge.py run --data $FORQ_DATA --work FOLDER", *([f"--only {only}"] if only else [])]
    )
    for job in jobs():
        if (only and job["what"] != only) or any(job.items() <= row.items() for row in edge_table.recorded()):
            continue
        if time.process_time() > limit:
            return
        row = {**job, **measure(job, data, work), "command": command}
        with TARGET.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--work", type=Path, required=True)
    running.add_argument("--only", help="scales, codes, ceiling, time or clean")
    running.add_argument("--limit", type=float, default=float("inf"), help="CPU seconds after which no cell begins")
    commands.add_parser("table")
    given = parser.parse_args()
    if given.command == "table":
        print(edge_table.table())
    else:
        run(given.data, given.work, given.only, given.limit)


if __name__ == "__main__":
    main()
