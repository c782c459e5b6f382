"""forq tune: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forq.cli import _arguments as given

TAKEN = "go on with its run by --resume, or choose another --out"


def tune(
    checkpoint: given.Checkpoint,
    out: Annotated[
        Path,
        typer.Option(
            help="The run's folder: new or empty; with --resume also the folder of a run.",
            parser=given.path,
            metavar="PATH",
        ),
    ],
    task: Annotated[str | None, typer.Option(help="What to train on; `forq ls tasks`.")] = None,
    data: given.Data = None,
    reward: given.Reward = None,
    recipe: Annotated[str | None, typer.Option(help="Which method; `forq ls recipes`. Default: qzo.")] = None,
    move: Annotated[
        str | None,
        typer.Option(
            help="Kinds that move, with commas: scales, codes, zeros, offsets, codebooks, norms, biases, embeddings, "
            "dense, lora, all-float; `forq inspect` says which there are. Default: the recipe's."
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of the adapters that --move lora begins. Default: 8.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Their product counts alpha/rank times. Default: 16.")] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            help="Which layers carry one: all-linear, qv, or ends of names, q_proj,v_proj. Default: all-linear."
        ),
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="Adapters on an integer grid of 2 … 8 bits. Default: 8 with zoqo, else float.")
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="A safetensors file of factors for single coordinates; 0 is a mask.", parser=given.path, metavar="PATH"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps. Default: 2000.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of noise and data order. Default: 0.")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between scores. Default: a twentieth.")] = None,
    tokens_per_probe: Annotated[
        int | None, typer.Option(help="Batches of so many tokens, in place of task.batch_rows rows.")
    ] = None,
    micro_batch_tokens: given.MicroBatch = None,
    resolution: Annotated[int | None, typer.Option(help="Of text-to-image: pixels of a side. Default: 512.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting: rule.lr=1e-3, task.max_length=64; repeatable."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. Default: auto.")] = None,
    kernel: Annotated[
        str | None, typer.Option(help="Of quantized layers: auto, reference, ort or triton. Default: auto.")
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(help="int8: rounded to 8 bits in front of 8-bit layers with one scale a row. Default: float."),
    ] = None,
    quantize_on_load: Annotated[
        str | None,
        typer.Option(
            help="Quantize a float checkpoint into OUT/base first, and tune that: gptq4, gptq8, gptq3, gptq2, nf4, fp4."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in OUT, or begin it: the same command line, repeated, ends in a finished run.",
        ),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard's files, into the run's folder tensorboard/.")
    ] = False,
    as_json: given.Json = False,
) -> None:
    """Tune a quantized checkpoint with forward passes only, and save the same kind of checkpoint."""
    from forq.cli import _resumed, _screen, _tuning
    from forq.errors import ConfigError
    from forq.inspection.coverage import chosen
    from forq.runs.agreement import holds_run
    from forq.runs.folder import BASE, vacant

    held = holds_run(out)
    if not vacant(out) and not (resume and held):
        raise ConfigError(f"{out} is in the way: " + (TAKEN if held else "it holds no run; choose another --out"))
    if quantize_on_load is not None:
        from forq.models.convert.onload import quantized

        if held and not (out / BASE).is_dir():
            raise ConfigError(f"--quantize-on-load: the run in {out} has none, found {quantize_on_load}; leave it out")
        with _screen.err.status("quantizing"):
            checkpoint = str(quantized(checkpoint, quantize_on_load, out / BASE))
    sets = [*(sets or []), *([] if resolution is None else [f"task.resolution={resolution}"])]
    options: dict[str, object] = {
        "--task": task,
        "--recipe": recipe,
        "--steps": steps,
        "--seed": seed,
        "--eval-every": eval_every,
        "--reward": reward,
        "--tokens-per-probe": tokens_per_probe,
        "--micro-batch-tokens": micro_batch_tokens,
        "--activations": activations,
        "--move": move,
        "--rank": rank,
        "--alpha": alpha,
        "--targets": targets,
        "--bits": bits,
    }
    given_now = {name: value for name, value in options.items() if value is not None}
    asked = _resumed.Asked(checkpoint, given_now, tuple(sets), data, profile, device, kernel)
    if held:
        config = _resumed.settings(out, asked)
        drawn = not tensorboard or (out / "tensorboard").is_dir()
        if drawn and (result := _resumed.result(out, config)) is not None:
            _screen.err.print(f"{out}: this run is finished", highlight=False, soft_wrap=True)
            _tuning.show(result, config, as_json=as_json)
            return
    else:
        if resume:
            _screen.err.print(f"{out}: no run was begun here yet; it begins now", highlight=False, soft_wrap=True)
        config = _resumed.first(asked)
    _tuning.tune(
        config,
        out,
        resume=held,
        tensorboard=tensorboard,
        as_json=as_json,
        chosen=chosen(move, sets),
    )
