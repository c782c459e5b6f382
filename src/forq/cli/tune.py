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
            help="bfloat16 multiplies in bfloat16, which is faster on a CPU with AMX; int8 rounds the inputs of 8-bit "
            "layers that have one scale per row. Default: float.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    quantize_on_load: Annotated[
        str | None,
        typer.Option(
            help="Quantize a float checkpoint into OUT/base first: gptq4, gptq8, gptq3, gptq2, nf4 or fp4.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Task to train on; `forq ls tasks` lists them.", rich_help_panel=DATA)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="File or folder with the task's data; also looked for inside $FORQ_DATA. Default: the folder "
            "named like the task in $FORQ_DATA.",
            rich_help_panel=DATA,
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
            help="Most tokens in one forward pass, padding included. Bounds memory; changes only the last bits of "
            "losses.",
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
            help="Another data set to score at every evaluation, with the divergence from the base on its tokens. "
            "Its options: --set watch.NAME.rows=16, --set watch.NAME.max_length=64. Repeatable.",
            rich_help_panel=DATA,
        ),
    ] = None,
    watch_limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=KL",
            help="End the run once the mean KL(base ‖ tuned) on a watched data set is above this number of nats per "
            "token. The best step within the limit is saved. Repeatable.",
            rich_help_panel=DATA,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Method; `forq ls recipes` lists them. Default: qzo for causal language models, qzo-shared for all "
            "other models. With --reward, with a learning rate or a clip in --set, or with codes, zeros or lora in "
            "--move, the default is qzo-slopes.",
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
            help="Blocks that move: 11, 10-24, 10-, middle or all. Embedding and head move only with all. Default: the "
            "recipe's; qzo takes middle where the scales of a language model of 12 blocks or more learn classes.",
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
            help="Put LoRA adapters on an integer grid of 2 to 8 bits. Default: 8 with the recipes zoqo, zoqo-paper, "
            "quzo and qes; with others, adapters are floats.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a LoRA adapter in PEFT's format that the run begins from, with --move lora.",
            parser=given.path,
            metavar="PATH",
            rich_help_panel=METHOD,
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Safetensors file of factors by which single coordinates move, in probes and steps; 0 freezes one.",
            parser=given.path,
            metavar="PATH",
            rich_help_panel=METHOD,
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting of the recipe or the task, such as rule.lr=1e-3 or task.max_length=64; repeatable.",
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
            help="Continue the run in OUT, or begin it if there is none. After an interruption, repeat the command.",
            rich_help_panel=RUN,
        ),
    ] = False,
    rank_timeout: Annotated[
        float | None,
        typer.Option(
            help="Under torchrun: seconds until a silent rank ends the group. Default: the time of ten forward passes, "
            "but at least 10 seconds.",
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
        raise ConfigError(f"{out}: {_screen.TAKEN if held else _screen.OTHER}")
    if quantize_on_load is not None and held and not (out / BASE).is_dir():
        raise ConfigError(f"--quantize-on-load: the run in {out} has none, found {quantize_on_load}; leave it out")
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
    config = _resumed.settings(out, asked) if held else _resumed.first(asked)
    if quantize_on_load is not None:  # once the settings and the place of the data are known to be right
        from forq.models.convert.onload import quantized

        with _screen.err.status("quantizing"):
            base = quantized(checkpoint, quantize_on_load, out / BASE, begun=held)
        config = config.model_copy(update={"checkpoint": str(base)})
    if held:
        drawn = not tensorboard or (out / "tensorboard").is_dir()
        if drawn and (result := _resumed.result(out, config)) is not None:
            _screen.err.print(_resumed.finished_line(out, config), highlight=False, soft_wrap=True)
            _tuning.show(result, config, as_json=as_json)
            return
    elif resume:
        _screen.err.print(f"{out}: no run was begun here yet; it begins now", highlight=False, soft_wrap=True)
    _tuning.tune(
        config,
        out,
        resume=held,
        tensorboard=tensorboard,
        as_json=as_json,
        chosen=chosen(move, sets),
    )
