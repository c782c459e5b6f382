"""From a journal and the base checkpoint back to the tuned one, without a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.coordinates import space as spaces
from forq.coordinates.domain import Domains
from forq.coordinates.leaf import Leaf
from forq.coordinates.profile import FILE, Profile
from forq.coordinates.space import Space
from forq.errors import ConfigError, JournalError
from forq.layers.lora import Adapter
from forq.models.adapters import peft
from forq.models.adapters.lora import begun
from forq.models.layout import layout
from forq.models.saved import planned, save
from forq.models.twins import with_twins
from forq.recipes.plan import plan
from forq.recipes.settings import Settings, settings
from forq.runs import engine, journal
from forq.runs.journal import Journal, Line
from forq.runs.oracles.tape import Tape
from forq.runs.replay_leaves import Listed
from forq.runs.replay_leaves import leaves as filed_leaves

_NEVER = 1 << 62
"""The digests asked for are the journal's own; the engine need not add others."""


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a journal's header that rebuilding needs, checked."""

    base: str
    leaves: tuple[Listed, ...]
    method: Settings
    seed: int
    steps: int
    portable: bool
    profile: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What :func:`verify` found; every field but the counts is a fact that was checked.

    Attributes:
        steps, forwards: training steps and forward passes on record.
        torn_bytes: bytes of a last line that a kill cut off; the lines before it are whole.
        finished: the run went to its end.
        rebuilt: the base rebuilds every digest; ``None`` if no base was given.
        checkpoint: the run's ``checkpoint/`` holds exactly the tensors the journal rebuilds; ``None`` if
            there is none, or no base was given.
        adapter: the same of ``adapter/``.
    """

    steps: int
    forwards: int
    torn_bytes: int
    finished: bool
    rebuilt: bool | None
    checkpoint: bool | None
    adapter: bool | None


def replay(
    run: Path | str, base: Path | str, out: Path | str, *, step: int | None = None, profile: Path | None = None
) -> int:
    """Write the checkpoint a run had after ``step`` training steps; by default the one it saved.

    Adapters are written as PEFT keeps them: into the folder itself, or its ``adapter/`` where the base moved too.

    Args:
        run: the run's folder, or its journal alone.
        base: the checkpoint the run began from: a folder or a hub id.
        out: a new folder.
        step: training steps; 0 is the base itself.
        profile: the run's profile.safetensors, where it had one and it does not lie beside the journal.

    Returns:
        The training step that was rebuilt.

    Raises:
        JournalError: the journal is damaged, of another base or law, or does not rebuild its digests.
        ConfigError: the run has no such step.
    """
    past, ckpt = journal.read(_journal_of(run)), Checkpoint.open(base)
    header = _header(past)
    saved = _saved(past)
    last = sum(line.kind == "train" for line in past.lines)
    wanted = step if step is not None else int(saved.notes["trained"]) if saved else last
    if not 0 <= wanted <= last:
        raise ConfigError(f"--step: the run has steps 0 … {last}, found {wanted}")
    space = _space(header, ckpt, profile or past.path.parent / FILE)
    for _ in _play(past, header, space, wanted):
        pass
    tensors = space.exported()
    if saved and wanted == saved.notes["trained"] and spaces.digest(tensors) != saved.digest:
        raise JournalError("the rebuilt tensors are not those the run saved: the journal and this base do not match")
    own = any(name in ckpt.info for name in tensors)
    save(ckpt, _adapters(header, ckpt), tensors, Path(out), Path(out) / "adapter" if own else Path(out))
    return wanted


def verify(run: Path | str, base: Path | str | None = None) -> Verdict:
    """Is this journal whole, and does it rebuild what it claims?

    Raises:
        JournalError: a line does not match its seal, the base is another, or a digest is not rebuilt.
    """
    past = journal.read(_journal_of(run))
    saved, header = _saved(past), _header(past)
    trained = sum(line.kind == "train" for line in past.lines)
    rebuilt = matches = adapter = None
    if base is not None:
        ckpt = Checkpoint.open(base)
        space = _space(header, ckpt, past.path.parent / FILE)
        best: dict[str, Tensor] | None = None
        for done in _play(past, header, space, trained):
            if saved and done == saved.notes["trained"]:
                best = space.exported()
        rebuilt = True
        if saved and best is not None:
            if spaces.digest(best) != saved.digest:
                raise JournalError("the rebuilt tensors are not those the run saved")
            own = {name: tensor for name, tensor in best.items() if name in ckpt.info}
            matches = _holds(Path(run) / "checkpoint", ckpt, with_twins(ckpt, own)) if own else None
            if adapters := _adapters(header, ckpt):
                adapter = peft.holds(Path(run) / "adapter", adapters, best)
    return Verdict(trained, past.forwards, past.torn_bytes, saved is not None, rebuilt, matches, adapter)


def _play(past: Journal, header: Header, space: Space, steps: int) -> Iterator[int]:
    """Replay up to ``steps`` training steps; yield the number done, from 0, and hold every digest to account."""
    yield 0
    if steps == 0:
        return
    method = plan(header.method, seed=header.seed, steps=header.steps, half_range=space.half_range)
    done = 0
    for line in engine.run(space, Tape(past.lines), method, steps=header.steps, digest_every=_NEVER):
        held = past.lines[line.step].digest
        if held is not None and space.digest() != held:
            why = "" if header.portable else "; its noise is not portable: replay it with the versions it names"
            raise JournalError(f"step {line.step}: the masters rebuilt from this base are not the journal's{why}")
        if line.kind == "train":
            done += 1
            yield done
        if done == steps:
            return


def _header(past: Journal) -> Header:
    """The header's fields.

    Raises:
        JournalError: another law, or a field that is missing or cannot be.
    """
    found = past.header
    if found.get("law") != spaces.LAW:
        raise JournalError(
            f"{past.path}: expected a journal of law {spaces.LAW}, found law {found.get('law')!r}; "
            "use the forq that wrote it"
        )
    try:
        method = dict(found["method"])
        seed, steps = int(method.pop("seed")), int(method.pop("steps"))
        method.pop("recipe")
        leaves = tuple((str(n), str(g), int(axis), getattr(torch, dtype)) for n, g, axis, dtype in found["leaves"])
        return Header(
            str(found["base"]), leaves, settings(method), seed, steps, bool(found["portable"]), found.get("profile")
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise JournalError(f"{past.path}: the header does not say what it must: {error}") from error


def _space(header: Header, ckpt: Checkpoint, profile: Path) -> Space:
    if header.base != ckpt.digest():
        raise JournalError(
            f"another base: the journal began from a checkpoint of digest {header.base}, {ckpt.path} has "
            f"{ckpt.digest()}; give the checkpoint the run was started from"
        )
    factors = {factor.name: factor for adapter in _adapters(header, ckpt) for factor in adapter}
    filed = {leaf.name: leaf for leaf in filed_leaves((one for one in header.leaves if one[0] not in factors), ckpt)}
    leaves: list[Leaf] = [(factors.get(name) or filed[name]) for name, *_ in header.leaves]
    domain: Domains = header.method.domain
    if header.profile is not None:
        if not profile.is_file():
            raise JournalError(
                f"the run had a profile, expected it as {profile}: lay it there, or name it by --profile"
            )
        found = Profile.read(profile)
        if found.digest != header.profile:
            raise JournalError(
                f"{profile}: expected the run's profile of digest {header.profile}, found {found.digest}"
            )
        domain = found.over(domain)
    return Space(leaves, domain)


def _adapters(header: Header, ckpt: Checkpoint) -> list[Adapter]:
    """The run's adapters before its first step."""
    if not any(group == "lora" for _, group, _, _ in header.leaves):
        return []
    return begun(layout(ckpt).model, **header.method.lora.model_dump(exclude={"alone"}), seed=header.seed)


def _saved(past: Journal) -> Line | None:
    return past.lines[-1] if past.lines and past.lines[-1].kind == "saved" else None


def _journal_of(run: Path | str) -> Path:
    path = Path(run)
    return path / "journal.jsonl" if path.is_dir() else path


def _holds(folder: Path, base: Checkpoint, moved: Mapping[str, Tensor]) -> bool | None:
    """Whether a checkpoint is the base with exactly these tensors moved; ``None`` if there is no folder."""
    if not folder.is_dir():
        return None
    found, plan = Checkpoint.open(folder), planned(base, moved)
    if set(found.info) != set(base.info) - plan.gone:
        return False
    wanted = plan.tensors
    return all(
        torch.equal(found.read(name), wanted[name] if name in wanted else base.read(name)) for name in found.info
    )
