"""Pretrain forq's demo model: a four-layer Llama on English prose, by ordinary back-propagation, on one
core.

Why it exists: forq tunes models that are already quantized, and a demo that needs a download is no demo.
So the project ships a language model of its own, small enough to live in the package, and this is where
it comes from.

Text (prose only; every number in README.md refers to it):

* the Python language reference and library topics (``pydoc_data.topics``);
* docstrings of the standard library and of the packages installed beside this interpreter, cut into
  paragraphs, doctest lines removed, every paragraph kept once. No program text: code is the *demo task*,
  which the model must not have met;
* with ``--data``: TinyStories text and WikiText-2 from a folder that holds
  ``tinystories-text/tinystories.txt`` and ``wikitext2/{valid,test}.txt``. Without it the script runs on
  docstrings alone.

The tokenizer (byte-level BPE) is trained on a mixture of that prose and of program text, so that
indentation and keywords cost few tokens; the model itself sees only the prose.

The run stops by the clock (``--minutes``) or after a number of steps (``--steps``, which makes a run
repeatable), and can be stopped and started again: everything it needs is in ``OUT/state.pt``.

    python pretrain.py --out OUT --data DATA --minutes 40
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from prose import is_held_out, program_text, prose

END = "<|end|>"


def make_tokenizer(documents: list[str], vocabulary: int) -> Any:
    """Byte-level BPE with single digits; the only special token ends a document."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
    )


def prepare(args: argparse.Namespace) -> None:
    """Write OUT/tokenizer, the token streams OUT/tokens.npz and the counts of both, OUT/data.json."""
    import numpy as np

    out, rng = args.out, random.Random(args.seed)
    sources = prose(args.data)
    everything = [d for name in sorted(sources) for d in sources[name]]
    rng.shuffle(everything)
    sample, size = [], 0
    for document in everything:  # 6 M characters of prose and 5 M of program text are plenty for 2,048 merges
        sample.append(document[:20_000])
        size += len(sample[-1])
        if size > 6_000_000:
            break
    tokenizer = make_tokenizer(sample + program_text(rng, 5_000_000), args.vocabulary)
    tokenizer.save_pretrained(out / "tokenizer")
    backend, end = tokenizer.backend_tokenizer, tokenizer.eos_token_id

    def stream(documents: list[str]) -> Any:
        ids: list[int] = []
        for start in range(0, len(documents), 256):
            for encoding in backend.encode_batch(documents[start : start + 256]):
                ids.extend(encoding.ids)
                ids.append(end)
        return np.asarray(ids, dtype=np.uint16)

    arrays = {"train": stream([d for d in everything if not is_held_out(d)])}
    for name, documents in sources.items():
        arrays[f"held_{name}"] = stream([d for d in documents if is_held_out(d)])
    np.savez(out / "tokens.npz", **arrays)
    report = {
        "characters": {name: sum(map(len, documents)) for name, documents in sources.items()},
        "documents": {name: len(documents) for name, documents in sources.items()},
        "tokens": {name: len(ids) for name, ids in arrays.items()},
    }
    (out / "data.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report), flush=True)


def build_model(args: argparse.Namespace, end: int) -> Any:
    """A Llama with random weights (standard deviation 0.02), input and output embeddings tied, in fp32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=args.vocabulary,
            hidden_size=args.hidden,
            intermediate_size=args.ffn,
            num_hidden_layers=args.layers,
            num_attention_heads=args.heads,
            num_key_value_heads=args.heads,
            max_position_embeddings=args.context,
            tie_word_embeddings=True,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def held_out_losses(model: Any, arrays: Any, context: int, windows: int) -> dict[str, float]:
    """Next-token loss (nats per token) on the first `windows` windows of each held-out source, and on all."""
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy

    losses: dict[str, float] = {}
    total, count = 0.0, 0
    model.eval()
    with torch.no_grad():
        for name in sorted(n for n in arrays if n.startswith("held_")):
            ids = arrays[name]
            n = min(windows, (len(ids) - 1) // context)
            if n == 0:
                continue
            summed = 0.0
            for start in range(0, n, 8):
                rows = [ids[i * context : (i + 1) * context + 1] for i in range(start, min(start + 8, n))]
                x = torch.from_numpy(np.stack(rows).astype(np.int64))
                logits = model(input_ids=x[:, :-1]).logits
                summed += float(cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="sum"))
            losses[name.removeprefix("held_")] = summed / (n * context)
            total, count = total + summed, count + n * context
    model.train()
    losses["all"] = total / count
    return losses


def learning_rate(progress: float, step: int, args: argparse.Namespace) -> float:
    """Warm-up, constant, then linear decay to zero over the last `--decay` of the run (progress: 0 to 1)."""
    warm = min(1.0, (step + 1) / args.warmup)
    cool = min(1.0, max(0.0, (1.0 - progress) / args.decay))
    return float(args.lr * warm * cool)


def train(args: argparse.Namespace) -> None:
    """Train from OUT/state.pt where there is one, else from scratch; leave an HF folder in OUT/float."""
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import AutoTokenizer

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.out / "tokenizer")
    arrays = dict(np.load(args.out / "tokens.npz"))
    ids, span = arrays["train"], args.context
    model = build_model(args, tokenizer.eos_token_id)
    decayed = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=args.lr,
        betas=(0.9, 0.95),
        fused=True,
    )
    step, spent = 0, 0.0
    state_file, curve_file = args.out / "state.pt", args.out / "curve.csv"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    else:
        curve_file.write_text("step,seconds,tokens,lr,train_loss,held_out_loss\n")
    windows = (len(ids) - 1) // span
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters; {windows * span:,} training tokens; from step {step}", flush=True)

    def save() -> None:
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "spent": spent,
        }
        torch.save(state, args.out / "state.tmp")
        (args.out / "state.tmp").replace(state_file)  # never a half-written state
        model.save_pretrained(args.out / "float")
        tokenizer.save_pretrained(args.out / "float")

    def batch(index: int) -> torch.Tensor:
        # Windows are visited in a new random order each epoch, which depends on seed and epoch alone: a run
        # that was stopped continues with the batches it would have had.
        rows = []
        for position in range(index * args.batch, (index + 1) * args.batch):
            epoch, offset = divmod(position, windows)
            if epoch not in orders:
                orders.clear()
                orders[epoch] = np.random.default_rng([args.seed, epoch]).permutation(windows)
            begin = int(orders[epoch][offset]) * span
            rows.append(ids[begin : begin + span + 1])
        return torch.from_numpy(np.stack(rows).astype(np.int64))

    orders: dict[int, Any] = {}
    started, before = time.monotonic(), spent
    evaluated = saved = spent
    recent: list[float] = []
    while True:
        progress = step / args.steps if args.steps else spent / (60 * args.minutes)
        done = progress >= 1.0
        if done or (recent and spent - evaluated >= args.evaluate_seconds):
            loss = held_out_losses(model, arrays, span, 24)
            evaluated = spent
            row = [step, round(spent, 1), step * args.batch * span, f"{optimizer.param_groups[0]['lr']:.3e}"]
            row += [f"{np.mean(recent):.4f}" if recent else "", f"{loss['all']:.4f}"]
            with curve_file.open("a", newline="") as handle:
                csv.writer(handle).writerow(row)
            print(row, {k: round(v, 3) for k, v in loss.items()}, flush=True)
            recent = []
            if done:
                break
        if spent - saved >= args.save_seconds:
            save()
            saved = spent
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, step, args)
        x = batch(step)
        value = cross_entropy(model(input_ids=x[:, :-1]).logits.flatten(0, 1), x[:, 1:].flatten())
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(float(value.detach()))
        step += 1
        spent = before + time.monotonic() - started
    save()
    final = held_out_losses(model, arrays, span, 10**9)
    summary = {
        "seed": args.seed, "parameters": parameters, "steps": step, "seconds": round(spent, 1),
        "tokens_seen": step * args.batch * span, "epochs": round(step * args.batch / windows, 3),
        "held_out": {name: round(value, 4) for name, value in final.items()},
        "python": sys.version.split()[0], "torch": torch.__version__,
    }  # fmt: skip
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps(summary), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain forq's demo model on prose, on one core.")
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer, tokens, state, curve and model")
    parser.add_argument("--data", type=Path, help="folder with tinystories-text/ and wikitext2/ (optional)")
    parser.add_argument("--minutes", type=float, default=45.0, help="wall-clock budget of the training loop")
    parser.add_argument("--steps", type=int, help="train exactly this many steps instead (repeatable)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--ffn", type=int, default=768)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--context", type=int, default=256, help="tokens")
    parser.add_argument("--batch", type=int, default=8, help="windows of --context tokens per step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--decay", type=float, default=0.3, help="last part of the run with a falling learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--evaluate-seconds", type=float, default=120.0)
    parser.add_argument("--save-seconds", type=float, default=240.0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "tokens.npz").exists():
        prepare(args)
    train(args)


if __name__ == "__main__":
    main()
