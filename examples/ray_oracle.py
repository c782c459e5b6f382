"""The run of ``forq tune --recipe qzo-slopes``, its forward passes dealt to Ray actors; one is killed on the way.

    .venv-ray/bin/python examples/ray_oracle.py CHECKPOINT TEXT OUT [--actors 2] [--steps 40] [--kill-at 20]

Only losses travel. Every actor holds a replica, which decides by the same losses and applies the same moves. An actor
that was killed is made anew, and is given the losses of all steps so far: it rebuilds its replica from the base.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from forq.models.load import load
from forq.runs import config as configs
from forq.runs.config import RunConfig, TaskConfig
from forq.runs.divided import Divided, Numbers
from forq.runs.measures import measures
from forq.runs.open_task import open_task
from forq.runs.outcome import conclude, outcome
from forq.runs.ranks.deal import shares
from forq.runs.ranks.replica import Replica
from forq.runs.run import Run
from forq.runs.trainer import Trainer
from forq.scalars.losses import Losses
from forq.scalars.moves import Move


@ray.remote(max_restarts=-1, num_cpus=0)
class Worker:
    def __init__(self, settings: dict[str, Any]) -> None:
        config = configs.parse(settings)
        model = load(config.checkpoint, config.device, kernel=config.kernel)
        self.replica = Replica(Trainer(config, model, open_task(config.task, model, config.seed)))

    def known(self) -> int:
        return len(self.replica)

    def pid(self) -> int:
        return os.getpid()

    def measure(
        self, step: int, probes: Sequence[Move], places: Sequence[int], answers: Sequence[Sequence[Losses]]
    ) -> tuple[list[Numbers], int]:
        self.replica.follow(answers)
        return self.replica.measure(step, probes, places), self.replica.checksum()


class RayOracle:
    """Deals a step's probes to the workers; asks again where a worker was lost."""

    def __init__(self, own: Divided, workers: Sequence[Any], kill_at: int) -> None:
        self.own, self.workers, self.kill_at = own, workers, kill_at
        self.answers: list[Sequence[Losses]] = []

    def __call__(self, step: int, probes: Sequence[Move]) -> Sequence[Losses]:
        dealt = shares(len(probes), [1.0] * len(self.workers), 0, from_point=self.own.from_point)
        asked = [self.ask(worker, step, probes, places) for worker, places in zip(self.workers, dealt, strict=True)]
        if step == self.kill_at:
            os.kill(ray.get(self.workers[-1].pid.remote()), 9)
        parts: dict[int, Numbers] = {}
        checksums = set()
        for worker, places, answer in zip(self.workers, dealt, asked, strict=True):
            try:
                found, checksum = ray.get(answer)
            except ray.exceptions.RayActorError:
                print(f"step {step}: an actor is gone; a new one replays {len(self.answers)} steps")
                found, checksum = ray.get(self.ask(worker, step, probes, places))
            parts |= dict(zip(places, (part.copy() for part in found), strict=True))
            checksums.add(checksum)
        assert len(checksums) == 1, f"step {step}: replicas differ"
        self.answers.append(self.own.join(step, probes, [parts[place] for place in range(len(probes))]))
        return self.answers[-1]

    def ask(self, worker: Any, step: int, probes: Sequence[Move], places: Sequence[int]) -> Any:
        while True:
            try:
                known = ray.get(worker.known.remote())
                return worker.measure.remote(step, probes, places, self.answers[known:])
            except ray.exceptions.ActorUnavailableError:  # it is being made anew
                continue


def tuned(config: RunConfig, out: Path, actors: int, kill_at: int) -> None:
    workers = [Worker.remote(config.model_dump(mode="json")) for _ in range(actors)]
    model = load(config.checkpoint, config.device, kernel=config.kernel)
    task = open_task(config.task, model, config.seed)
    oracle = lambda space: RayOracle(measures(config, model, task, space), workers, kill_at)  # noqa: E731
    run = Run.begin(out, config, model, task, oracle=oracle)
    for _ in run.events():
        pass
    run.finish()
    print(json.dumps(conclude(outcome(run), run.config, task, out, 0.0)["validation"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("checkpoint", "text", "out"):
        parser.add_argument(name)
    for name, value in (("--actors", 2), ("--steps", 40), ("--kill-at", 20)):
        parser.add_argument(name, type=int, default=value)
    asked = parser.parse_args()
    task = TaskConfig(name="text", data=asked.text, options={"max_length": 32, "validation_rows": 16, "test_rows": 16})
    config = configs.complete("qzo-slopes", checkpoint=asked.checkpoint, task=task, steps=asked.steps)
    ray.init(num_cpus=asked.actors, include_dashboard=False)
    tuned(config, Path(asked.out), asked.actors, asked.kill_at)
