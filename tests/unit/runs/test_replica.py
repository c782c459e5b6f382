"""Workers of another engine hold replicas: the same run, also where a worker is lost on the way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from forq.models.load import load
from forq.runs import config as configs
from forq.runs.config import RunConfig, TaskConfig
from forq.runs.divided import Divided, Numbers
from forq.runs.open_task import open_task
from forq.runs.oracle_choice import measures
from forq.runs.ranks.replica import Replica
from forq.runs.ranks.schedule import shares
from forq.runs.run import Run
from forq.runs.trainer import Trainer
from forq.scalars.losses import Losses
from forq.scalars.moves import Move


class Engine:
    """Deals to replicas in this process; the second of them is made anew at a step."""

    def __init__(self, config: RunConfig, own: Divided, lost_at: int) -> None:
        self.config, self.own, self.lost_at = config, own, lost_at
        self.workers = [self.worker(), self.worker()]
        self.past: list[Sequence[Losses]] = []

    def worker(self) -> Replica:
        model = load(self.config.checkpoint)
        return Replica(Trainer(self.config, model, open_task(self.config.task, model, self.config.seed)))

    def __call__(self, step: int, probes: Sequence[Move]) -> list[Losses]:
        if step == self.lost_at:
            self.workers[1] = self.worker()
        parts: dict[int, Numbers] = {}
        for worker, places in zip(
            self.workers, shares(len(probes), [1.0, 1.0], 0, from_point=self.own.from_point), strict=True
        ):
            worker.follow(self.past[len(worker) :])
            parts |= dict(zip(places, worker.measure(step, probes, places), strict=True))
        assert len({worker.checksum() for worker in self.workers}) == 1
        self.past.append(self.own.join(step, probes, [parts[place] for place in range(len(probes))]))
        return list(self.past[-1])


@pytest.mark.parametrize("recipe", ["qzo", "mezo"])
def test_replicas_in_place_of_one_process(base, text, tmp_path, recipe):
    options = {"max_length": 32, "validation_rows": 8, "test_rows": 8}
    task = TaskConfig(name="text", data=str(text), options=options)
    config = configs.complete(recipe, ["move=scales"], checkpoint=str(base), task=task, steps=4, eval_every=4)
    for name in ("one", "replicas"):
        model = load(base)
        opened = open_task(task, model, config.seed)

        def engine(space, model=model, opened=opened):
            return Engine(config, measures(config, model, opened, space), lost_at=3)

        run = Run.begin(tmp_path / name, config, model, opened, oracle=None if name == "one" else engine)
        for _ in run.events():
            pass
        run.finish()
    names = ("journal.jsonl", "checkpoint/model.safetensors")
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "replicas" / name).read_bytes() for name in names)
