"""forq tune: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forq.cli import _arguments as given

MODEL, DATA, METHOD, RUN, OUTPUT = "Model", "Data", "Method", "Run", "Output"
"""Groups of options in `forq tune --help`."""


def tune(
    checkpoint: given.Checkpoint,
    out: Annotated[
        Path,
        typer.Option(
            help="Run folder: new or empty; with --resume, an existing run.",
            parser=given.path,
            metavar="PATH",
            rich_help_panel=OUTPUT,
        ),
    ],
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N. Default: auto.", rich_help_panel=MODEL)
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            help="Kernel of the quantized layers: auto, reference, native, ort or triton. Default: auto.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(
            help="int8 rounds the inputs of 8-bit layers with one scale a row. Default: float.", rich_help_panel=MODEL
        ),
    ] = None,
    quantize_on_load: Annotated[
        str | None,
        typer.Option(
            help="Quantize a float checkpoint into OUT/base first: gptq4, gptq8, gptq3, gptq2, nf4, fp4.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Task to train on; `forq ls tasks` lists them.", rich_help_panel=DATA)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="File or folder with the task's data; also looked for inside $FORQ_DATA.", rich_help_panel=DATA
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="Objective in place of the task's: accuracy, f1, exact_match, or your function as module:name or "
            "file.py:name, whose code is run.",
            rich_help_panel=DATA,
        ),
    ] = None,
    tokens_per_probe: Annotated[
        int | None,
        typer.Option(help="Tokens in a batch, in place of task.batch_rows rows.", rich_help_panel=DATA),
    ] = None,
    micro_batch_tokens: Annotated[
        int | None,
        typer.Option(
            help="Most tokens in one forward, padding included; bounds memory, losses stay the same.",
            rich_help_panel=DATA,
        ),
    ] = None,
    resolution: Annotated[
        int | None,
        typer.Option(help="Side of the pictures of text-to-image, in pixels. Default: 512.", rich_help_panel=DATA),
    ] = None,
    watch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TASK:DATA",
            help="Another data set to score at every evaluation, with the divergence from the base on its tokens; "
            "repeatable. Its options: --set watch.NAME.rows=16, watch.NAME.max_length=64.",
            rich_help_panel=DATA,
        ),
    ] = None,
    watch_limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=KL",
            help="Mean KL(base ‖ tuned) on a watched data set, in nats a token, beyond which the run ends and saves "
            "the best within it; repeatable.",
            rich_help_panel=DATA,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Method; `forq ls recipes` lists them. Default: qzo; qzo-shared for encoders, images and "
            "diffusion; qzo-slopes with --reward or a rate.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    move: Annotated[
        str | None,
        typer.Option(
            help="Kinds of parameters to train, with commas: scales, codes, zeros, offsets, codebooks, norms, biases, "
            "activations, embeddings, dense, lora, all-float. `forq inspect` shows which a checkpoint has. Default: "
            "the recipe's.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            help="Blocks that move: 10-24, 10-, middle or all; embedding and head only with all. Default: the "
            "recipe's; qzo moves the middle where a deep language model learns classes.",
            metavar="RANGE",
            rich_help_panel=METHOD,
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank. Default: 8.", rich_help_panel=METHOD)] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="LoRA alpha; the adapter's output is scaled by alpha / rank. Default: 16.", rich_help_panel=METHOD
        ),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            help="Layers with an adapter: all-linear, qv, or ends of names such as q_proj,v_proj. Default: all-linear.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(
            help="Bits of the adapters' integer grid, 2 to 8. Default: 8 with zoqo, otherwise float.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a LoRA adapter in PEFT's format to go on from, with --move lora.",
            parser=given.path,
            metavar="PATH",
            rich_help_panel=METHOD,
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Safetensors file of per-coordinate step multipliers; 0 freezes a coordinate.",
            parser=given.path,
            metavar="PATH",
            rich_help_panel=METHOD,
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting of the recipe or the task: rule.lr=1e-3, task.max_length=64; repeatable.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps. Default: 2000.", rich_help_panel=RUN)] = None,
    forwards: Annotated[
        int | None,
        typer.Option(
            help="Budget of forward passes, calibration included, in place of --steps.", min=1, rich_help_panel=RUN
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the noise and of the data order. Default: 0.", rich_help_panel=RUN)
    ] = None,
    eval_every: Annotated[
        int | None,
        typer.Option(help="Steps between two validation scores. Default: a twentieth of --steps.", rich_help_panel=RUN),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in OUT, or begin it. The same command line, repeated, ends in a finished run.",
            rich_help_panel=RUN,
        ),
    ] = False,
    rank_timeout: Annotated[
        float | None,
        typer.Option(
            help="Under torchrun: seconds until a rank without a sign of life ends the group. Default: ten forward "
            "passes, and at least 10.",
            min=1.0,
            rich_help_panel=RUN,
        ),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", help="Also write TensorBoard files into OUT/tensorboard.", rich_help_panel=OUTPUT
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Tune a quantized checkpoint with forward passes only, and save the same kind of checkpoint."""
    from forq.cli import _ranks, _resumed, _screen, _tuning, _watch
    from forq.errors import ConfigError
    from forq.inspection.coverage import chosen
    from forq.runs.agreement import holds_run
    from forq.runs.folder import BASE, vacant

    several = _ranks.several()
    if several and quantize_on_load is not None:
        raise ConfigError("--quantize-on-load: expected one process, found several ranks; use `forq quantize` first")
    held = not several and holds_run(out)
    if not several and not vacant(out) and not (resume and held):
        raise ConfigError(
            f"{out} is in the way: " + (_screen.TAKEN if held else "it holds no run; choose another --out")
        )
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
        "--forwards": forwards,
        "--seed": seed,
        "--eval-every": eval_every,
        "--reward": reward,
        "--tokens-per-probe": tokens_per_probe,
        "--micro-batch-tokens": micro_batch_tokens,
        "--activations": activations,
        "--move": move,
        "--blocks": blocks,
        "--rank": rank,
        "--alpha": alpha,
        "--targets": targets,
        "--bits": bits,
    }
    given_now = {name: value for name, value in options.items() if value is not None}
    asked = _resumed.Asked(
        *(checkpoint, given_now, tuple(sets), data, profile, adapter, device, kernel),
        watch=_watch.named(watch or [], "--watch", "NAME=TASK:DATA"),
        watch_limit=_watch.limits(watch_limit or []),
    )
    if several:
        way = _ranks.Way(out, resume=resume, tensorboard=tensorboard, as_json=as_json, chosen=chosen(move, sets))
        _ranks.tune(asked, way, rank_timeout)
        return
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
