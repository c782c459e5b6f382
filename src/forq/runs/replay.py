"""Rebuild the tuned checkpoint from a journal and the base checkpoint, without a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.coordinates import space as spaces
from forq.coordinates.domain import Domains
from forq.coordinates.leaf import Leaf, Shared
from forq.coordinates.profile import FILE, Profile
from forq.coordinates.space import Space
from forq.errors import ConfigError, JournalError
from forq.layers.lora import Adapter
from forq.models.adapters import peft
from forq.models.adapters.lora import new_adapters
from forq.models.layout import layout
from forq.models.saved import planned, save
from forq.models.twins import with_twins
from forq.recipes.plan import plan
from forq.recipes.settings import Settings, settings
from forq.runs import engine, journal
from forq.runs.journal import Journal, Line
from forq.runs.oracles.tape import Tape
from forq.runs.replay_leaves import Listed
from forq.runs.replay_leaves import leaves as replay_leaves
from forq.runs.saved_digest import as_saved

_NEVER = 1 << 62
"""Steps between digests of the engine: none, since the journal's own digests are checked."""


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a journal's header that a replay needs, checked."""

    base: str
    leaves: tuple[Listed, ...]
    method: Settings
    seed: int
    steps: int
    portable: bool
    profile: str | None
    adapter: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of :func:`verify`.

    Attributes:
        steps, forwards: number of training steps and forward passes on record.
        torn_bytes: bytes of a last line that a kill cut off; all lines before it are complete.
        finished: whether the run reached its end.
        rebuilt: whether the base rebuilds every digest; ``None`` without a base.
        checkpoint: whether the run's ``checkpoint/`` holds exactly the rebuilt tensors; ``None`` if
            there is no such folder or no base.
        adapter: the same for ``adapter/``.
        saved: without a base, whether both folders hold the tensors whose digest the journal's last line has. A
            tensor that the run does not move is not among them. ``None`` where they were not compared.
    """

    steps: int
    forwards: int
    torn_bytes: int
    finished: bool
    rebuilt: bool | None
    checkpoint: bool | None
    adapter: bool | None
    saved: bool | None = None


def replay(
    run: Path | str,
    base: Path | str,
    out: Path | str,
    *,
    step: int | None = None,
    profile: Path | None = None,
    adapter: Path | None = None,
) -> int:
    """Write the checkpoint of a run after ``step`` training steps; by default the one that the run saved.

    Adapters are written in PEFT's format: into the folder itself, or into its ``adapter/`` if the
    base moved too.

    Args:
        run: the run's folder or its journal.
        base: the base checkpoint of the run: a folder or a hub id.
        out: a new folder.
        step: number of training steps; 0 is the base itself.
        profile: the run's profile.safetensors, if the run has one and it is not next to the
            journal.
        adapter: the folder of the adapter that the run went on from, if it did.

    Returns:
        The training step that was rebuilt.

    Raises:
        JournalError: the journal is damaged, has another base or law, or does not rebuild its
            digests.
        ConfigError: the run has no such step.
    """
    past, ckpt = journal.read(_journal_of(run)), Checkpoint.open(base)
    header = _header(past)
    saved = _saved(past)
    last = sum(line.kind == "train" for line in past.lines)
    wanted = step if step is not None else int(saved.notes["trained"]) if saved else last
    if not 0 <= wanted <= last:
        raise ConfigError(f"step: the run has steps 0 … {last}, found {wanted}")
    adapters = _adapters(header, ckpt, adapter)
    space = _space(header, ckpt, adapters, profile or past.path.parent / FILE)
    for _ in _play(past, header, space, wanted):
        pass
    tensors = space.exported()
    if saved and wanted == saved.notes["trained"] and spaces.digest(tensors) != saved.digest:
        raise JournalError("the rebuilt tensors are not those the run saved: the journal and this base do not match")
    own = any(name in ckpt.info for name in tensors)
    save(ckpt, adapters, tensors, Path(out), Path(out) / "adapter" if own else Path(out))
    return wanted


def verify(run: Path | str, base: Path | str | None = None, adapter: Path | None = None) -> Verdict:
    """Check that a journal is undamaged and, with a base, that it rebuilds its digests.

    Without a base, what the run saved is compared with the digest in the journal's last line.

    Args:
        adapter: the folder of the adapter that the run went on from, if it did.

    Raises:
        JournalError: a line does not match its seal, the base is not the run's, or a digest
            differs.
    """
    past = journal.read(_journal_of(run))
    saved, header = _saved(past), _header(past)
    trained = sum(line.kind == "train" for line in past.lines)
    rebuilt = matches = same = held = None
    if base is None and saved is not None and saved.digest is not None:
        grid = header.method.lora.bits is not None
        held = as_saved(Path(run), header.leaves, header.method.domain, saved.digest, grid=grid)
    if base is not None:
        ckpt = Checkpoint.open(base)
        adapters = _adapters(header, ckpt, adapter)
        space = _space(header, ckpt, adapters, past.path.parent / FILE)
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
            if adapters:
                same = peft.holds(Path(run) / "adapter", adapters, best)
    return Verdict(trained, past.forwards, past.torn_bytes, saved is not None, rebuilt, matches, same, held)


def _play(past: Journal, header: Header, space: Space, steps: int) -> Iterator[int]:
    """Replay up to ``steps`` training steps and check every digest; yield the number done, from 0."""
    yield 0
    if steps == 0:
        return
    method = plan(header.method, seed=header.seed, steps=header.steps, half_range=space.half_range)
    done = 0
    for line in engine.run(space, Tape(past.lines), method, steps=header.steps, digest_every=_NEVER):
        expected = past.lines[line.step].digest
        if expected is not None and space.digest() != expected:
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
        JournalError: the law is another, or a field is missing or invalid.
    """
    fields = past.header
    if fields.get("law") != spaces.LAW:
        raise JournalError(
            f"{past.path}: expected a journal of law {spaces.LAW}, found law {fields.get('law')!r}; "
            "use the forq that wrote it"
        )
    try:
        method = dict(fields["method"])
        seed, steps = int(method.pop("seed")), int(method.pop("steps"))
        method.pop("recipe")
        leaves = tuple(
            (str(n), str(g), int(axis), getattr(torch, dtype), Shared(str(own[0]), *map(int, own[1:])) if own else None)
            for n, g, axis, dtype, *own in fields["leaves"]
        )
        return Header(
            str(fields["base"]),
            leaves,
            settings(method),
            seed,
            steps,
            bool(fields["portable"]),
            fields.get("profile"),
            fields.get("adapter"),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise JournalError(f"{past.path}: the header lacks a field or holds an invalid value: {error}") from error


def _space(header: Header, ckpt: Checkpoint, adapters: Sequence[Adapter], profile: Path) -> Space:
    factors = {factor.name: factor for adapter in adapters for factor in adapter}
    others = (listed for listed in header.leaves if listed[0] not in factors)
    from_files = {leaf.name: leaf for leaf in replay_leaves(others, ckpt)}
    leaves: list[Leaf] = [(factors.get(name) or from_files[name]) for name, *_ in header.leaves]
    domain: Domains = header.method.domain
    if header.profile is not None:
        if not profile.is_file():
            raise JournalError(
                f"expected the run's profile at {profile}, found none; put it there (forq replay can take it "
                "from elsewhere, with --profile)"
            )
        own = Profile.read(profile)
        if own.digest != header.profile:
            raise JournalError(f"{profile}: expected the run's profile of digest {header.profile}, found {own.digest}")
        domain = own.over(domain)
    shared = {name: own for name, *_, own in header.leaves}
    return Space(leaves, domain, shared=lambda leaf: shared[leaf.name])


def _adapters(header: Header, ckpt: Checkpoint, folder: Path | None) -> list[Adapter]:
    """The run's initial adapters.

    Raises:
        JournalError: the base is another, or the run went on from an adapter that is not the folder's.
    """
    if header.base != ckpt.digest():
        raise JournalError(
            f"another base: expected a checkpoint with digest {header.base}, found {ckpt.digest()} for {ckpt.path}; "
            "give the checkpoint the run was started from"
        )
    if header.adapter is not None:
        if folder is None:
            raise JournalError("this run went on from an adapter: give its folder by --adapter")
        adapters = peft.opened(layout(ckpt).model, folder)
        if (found := peft.digest(adapters)) != header.adapter:
            raise JournalError(
                f"{folder}: expected the adapter of digest {header.adapter}, found {found}; give the one that the run "
                "went on from"
            )
        return adapters
    if folder is not None:
        raise JournalError(f"this run did not go on from an adapter, found {folder}: leave --adapter out")
    if not any(group == "lora" for _, group, *_ in header.leaves):
        return []
    return new_adapters(layout(ckpt).model, **header.method.lora.model_dump(exclude={"alone"}), seed=header.seed)


def _saved(past: Journal) -> Line | None:
    return past.lines[-1] if past.lines and past.lines[-1].kind == "saved" else None


def _journal_of(run: Path | str) -> Path:
    path = Path(run)
    return path / "journal.jsonl" if path.is_dir() else path


def _holds(folder: Path, base: Checkpoint, moved: Mapping[str, Tensor]) -> bool | None:
    """Whether a folder holds the base with exactly these moved tensors; ``None`` if there is no folder."""
    if not folder.is_dir():
        return None
    tuned, plan = Checkpoint.open(folder), planned(base, moved)
    if set(tuned.info) != set(base.info) - plan.gone:
        return False
    expected = plan.tensors
    return all(
        torch.equal(tuned.read(name), expected[name] if name in expected else base.read(name)) for name in tuned.info
    )
