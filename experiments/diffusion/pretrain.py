"""Pretrain the small SD3-architecture transformer on MNIST by back-propagation; the rest of the pipeline is fixed.

    python experiments/diffusion/pretrain.py --data $FORQ_DATA --work WORK --minutes 22

WORK/pipeline is a folder for StableDiffusion3Pipeline.from_pretrained, written every few minutes: a moving average of
the weights. curve.csv and curve.png beside this file are the loss as it went. A tenth of the rows has no caption.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import torch
from digits import train_digits
from pipeline import CAPTIONS, ROOM, pipeline, transformer

HERE = Path(__file__).parent
BATCH, RATE, WARM, DROP, KEEP = 32, 1e-3, 100, 0.1, 0.995


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--data", type=Path, required=True)
    args.add_argument("--work", type=Path, required=True)
    args.add_argument("--minutes", type=float, default=22.0)
    told = args.parse_args()
    images, labels = train_digits(told.data, range(18))
    torch.manual_seed(0)
    model = transformer()
    made = pipeline(model, told.work / "tokenizers")
    with torch.no_grad():
        latents = (images * 2 - 1 - made.vae.config.shift_factor) * made.vae.config.scaling_factor
        texts, _, pooled, _ = made.encode_prompt(
            [*CAPTIONS, ""], None, None, do_classifier_free_guidance=False, max_sequence_length=ROOM
        )
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(latents):,} digits")
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    rows, began, saved, step = [], time.time(), time.time(), 0
    while (spent := time.time() - began) < 60 * told.minutes:
        left = 1 - spent / (60 * told.minutes)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / WARM, max(0.05, 2 * left))
        picked = torch.randint(len(latents), (BATCH,))
        words = torch.where(torch.rand(BATCH) < DROP, len(CAPTIONS), labels[picked])
        x0, noise = latents[picked][:, None], torch.randn(BATCH, 1, *latents.shape[1:])
        sigma = torch.sigmoid(torch.randn(BATCH))
        noisy = (1 - sigma)[:, None, None, None] * x0 + sigma[:, None, None, None] * noise
        out = model(noisy, texts[words], pooled[words], 1000 * sigma, return_dict=False)[0]
        loss = (out - (noise - x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            keep = min(KEEP, (1 + step) / (10 + step))
            for name, p in model.named_parameters():
                average[name].lerp_(p, 1 - keep)
        rows.append((step, float(loss)))
        step += 1
        if step % 50 == 0:
            print(f"{step} {sum(loss for _, loss in rows[-50:]) / 50:.4f} {spent:.0f} s", flush=True)
        if time.time() - saved > 120:
            save(made, average, told.work / "pipeline", rows)
            saved = time.time()
    save(made, average, told.work / "pipeline", rows)
    plot(rows)


def save(made: object, average: dict[str, torch.Tensor], folder: Path, rows: list[tuple[int, float]]) -> None:
    model = made.transformer  # type: ignore[attr-defined]
    now = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.load_state_dict(average, strict=False)
    made.save_pretrained(folder, safe_serialization=True)  # type: ignore[attr-defined]
    model.load_state_dict(now, strict=False)
    with (HERE / "curve.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        for start in range(0, len(rows) - 24, 25):
            some = rows[start : start + 25]
            writer.writerow([start + 25, f"{sum(loss for _, loss in some) / len(some):.5f}"])


def plot(rows: list[tuple[int, float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    means = [sum(loss for _, loss in rows[at : at + 25]) / 25 for at in range(0, len(rows) - 24, 25)]
    figure, axes = pyplot.subplots(figsize=(6, 3.2))
    axes.plot([25 * (n + 1) for n in range(len(means))], means, linewidth=1)
    axes.set(xlabel="steps of 32 digits", ylabel="flow-matching loss", yscale="log")
    figure.tight_layout()
    figure.savefig(HERE / "curve.png", dpi=110)


if __name__ == "__main__":
    main()
