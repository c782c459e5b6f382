"""The run of ``forq tune --recipe qzo-slopes``, its forward passes dealt to Ray actors; one is killed on the way.

    .venv-ray/bin/python examples/ray_oracle.py CHECKPOINT TEXT OUT STEPS KILL_AT

Only losses travel. Every actor holds a replica, which decides by the same losses and applies the same moves. An actor
that was killed is made anew and gets the losses of all steps so far: it rebuilds its replica from the base.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from forq.models.load import load
from forq.runs import config as configs
from forq.runs.config import TaskConfig
from forq.runs.divided import Divided, Numbers
from forq.runs.open_task import open_task
from forq.runs.oracle_choice import measures
from forq.runs.ranks.replica import Replica
from forq.runs.ranks.schedule import shares
from forq.runs.run import Run
from forq.runs.trainer import Trainer
from forq.scalars.losses import Losses
from forq.scalars.moves import Move

ACTORS = 2


@ray.remote(max_restarts=-1, num_cpus=1)
class Worker:
    def __init__(self, settings: dict[str, Any]) -> None:
        config = configs.parse(settings)
        model = load(config.checkpoint, config.device)
        self.replica = Replica(Trainer(config, model, open_task(config.task, model, config.seed)))

    def state(self) -> tuple[int, int]:
        return len(self.replica), os.getpid()

    def measure(
        self, step: int, probes: Sequence[Move], places: Sequence[int], missed: Sequence[Sequence[Losses]]
    ) -> tuple[list[Numbers], int]:
        self.replica.follow(missed)
        return self.replica.measure(step, probes, places), self.replica.checksum()


class RayOracle:
    def __init__(self, own: Divided, workers: Sequence[Any], kill_at: int) -> None:
        self.own, self.workers, self.kill_at = own, workers, kill_at
        self.past: list[Sequence[Losses]] = []

    def __call__(self, step: int, probes: Sequence[Move]) -> Sequence[Losses]:
        dealt = shares(len(probes), [1.0] * ACTORS, 0, from_point=self.own.from_point)
        jobs = list(zip(self.workers, dealt, strict=True))
        # An actor does one thing after the other, so its process is asked for before it gets work.
        _, process = ray.get(self.workers[-1].state.remote()) if step == self.kill_at else (0, None)
        asked = [self.ask(worker, step, probes, places) for worker, places in jobs]
        if process is not None:
            os.kill(process, signal.SIGKILL)
        parts: dict[int, Numbers] = {}
        checksums = set()
        for (worker, places), answer in zip(jobs, asked, strict=True):
            try:
                found, checksum = ray.get(answer)
            except ray.exceptions.RayActorError:
                print(f"step {step}: an actor is gone; a new one replays {len(self.past)} steps")
                found, checksum = ray.get(self.ask(worker, step, probes, places))
            parts |= dict(zip(places, found, strict=True))
            checksums.add(checksum)
        assert len(checksums) == 1, f"step {step}: replicas differ"
        self.past.append(self.own.join(step, probes, [parts[place] for place in range(len(probes))]))
        return self.past[-1]

    def ask(self, worker: Any, step: int, probes: Sequence[Move], places: Sequence[int]) -> Any:
        while True:
            try:
                known, _ = ray.get(worker.state.remote())
                return worker.measure.remote(step, probes, places, self.past[known:])
            except ray.exceptions.RayActorError:  # it is being made anew
                continue


def main(checkpoint: str, text: str, out: str, steps: str, kill_at: str) -> None:
    task = TaskConfig(name="text", data=text, options={"max_length": 32, "validation_rows": 16, "test_rows": 16})
    config = configs.complete("qzo-slopes", checkpoint=checkpoint, task=task, steps=int(steps))
    ray.init(num_cpus=ACTORS, include_dashboard=False)
    workers = [Worker.remote(config.model_dump(mode="json")) for _ in range(ACTORS)]
    model = load(checkpoint, config.device)
    opened = open_task(task, model, config.seed)
    oracle = lambda space: RayOracle(measures(config, model, opened, space), workers, int(kill_at))  # noqa: E731
    run = Run.begin(Path(out), config, model, opened, oracle=oracle)
    print(*run.events(), sep="\n")
    run.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
