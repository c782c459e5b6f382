"""Damaged rows, chat templates and tokenizer files: each is refused by a ForqError or opens; none ends in a traceback.

    python -m tests.fuzz_rows --count 10000 --seed 1      # rows, templates and tokenizers in turn

What is done with them is what ``forq inspect CKPT --data FILE`` does: the tokenizer and the task are opened, how texts
are read is said, and two rows are laid out token by token. An alarm bounds every attempt.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forq.checkpoints import Checkpoint
from forq.errors import ForqError
from forq.models.tokenizer import open_tokenizer, reading
from forq.plugins import registry
from forq.tasks import account
from forq.tasks.rows.segments import spellings
from tests import tiny_lm
from tests.fixtures import gptq

LIMIT_S = 20

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' and loop.index0 > 0 %}"
    "{{ raise_exception('a system turn stands first') }}{% endif %}<|{{ m.role }}|>{{ m.content | trim }}</s>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GENERATION = {"eos_token_id": [1, 2], "bos_token_id": 0}

_TURNS = [("user", "film 1"), ("assistant", "good"), ("user", "film 2"), ("assistant", "bad")]
_CHAT = [
    {"messages": [{"role": role, "content": f"{text} {n}", "weight": 1} for role, text in _TURNS], "id": n}
    for n in range(8)
]
_PAIRS = [{"prompt": f"film number {n} was", "completion": " good", "id": n} for n in range(8)]
_PIECES = [
    b"\\ud83d",
    b"NaN",
    b"1e999",
    b'"a":1,"a":2',
    b"[" * 200,
    b"\0",
    b"\xff\xfe",
    b"\r",
    b"\t",
    b",",
    b'"',
    b"{%",
]


@dataclass(frozen=True)
class Target:
    """A data set that is damaged: the task that reads it, its files, and options of the task."""

    task: str
    folder: Path
    data: Path
    options: dict[str, Any]


def targets(folder: Path) -> list[Target]:
    """Every task of rows on the example it writes, and rows of one's own in every layout."""
    found = []
    for name in registry.names("tasks"):
        if name in ("text_to_image", "classify_images"):
            continue
        place = folder / name
        place.mkdir(parents=True)
        registry.get("tasks", name).example(place)
        for file in place.iterdir():
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            file.write_text("".join(lines[: 200 if name == "text" else 12]), encoding="utf-8")
        small = {"train_rows": 4, "validation_rows": 2}
        found.append(Target(name, place, place, {"max_length": 32} if name == "text" else small))
    layouts = {
        "chat.jsonl": "".join(json.dumps(row) + "\n" for row in _CHAT),
        "pairs.json": json.dumps(_PAIRS),
        "pairs.csv": "prompt,completion,id\n" + "".join(f'"film, {n}", good,{n}\n' for n in range(8)),
        "pairs.tsv": "prompt\tcompletion\n" + "".join(f"film {n}\t good\n" for n in range(8)),
    }
    for name, text in layouts.items():
        place = folder / name.replace(".", "_")
        place.mkdir()
        (place / name).write_text(text, encoding="utf-8")
        found.append(Target("completion", place, place / name, {}))
    return found


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The same bytes with one or a few of them changed, in ways that data and templates are wrong."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 4])):
        place = draw.randrange(len(data) + 1)
        kind = draw.choice(["flip", "cut", "insert", "insert", "copy", "value", "value"])
        if kind == "flip" and data:
            data[place % len(data)] ^= 1 << draw.randrange(8)
        elif kind == "cut":
            del data[place : place + draw.choice([1, 4, len(data)])]
        elif kind == "insert":
            data[place:place] = draw.choice([*_PIECES, draw.randbytes(3)])
        elif kind == "copy" and data:
            other = draw.randrange(len(data))
            data[place:place] = data[other : other + draw.choice([4, 40])]
        elif kind == "value":
            data = bytearray(_other_line(bytes(data), draw))
    return bytes(data)


def _other_line(content: bytes, draw: random.Random) -> bytes:
    """Another value in a JSON text, or in one of its lines."""
    for text, put in _texts(content, draw):
        try:
            return put(json.dumps(_other_value(json.loads(text), draw)).encode())
        except (ValueError, RecursionError):
            continue
    return content


def _texts(content: bytes, draw: random.Random) -> Iterator[tuple[bytes, Callable[[bytes], bytes]]]:
    yield content, lambda made: made
    lines = content.split(b"\n")
    place = draw.randrange(len(lines))
    yield lines[place], lambda made: b"\n".join([*lines[:place], made, *lines[place + 1 :]])


def _other_value(value: Any, draw: random.Random) -> Any:
    """A value with one inside it, however deep, turned into another, renamed or removed."""
    if isinstance(value, dict | list) and value and draw.random() < 0.8:
        key = draw.choice(list(value) if isinstance(value, dict) else list(range(len(value))))
        kind = draw.random()
        if kind < 0.1:
            del value[key]
        elif kind < 0.2 and isinstance(value, dict):
            value[draw.choice(["", "x", "role", "content", "text"])] = value.pop(key)
        else:
            value[key] = _other_value(value[key], draw)
        return value
    return draw.choice(
        [None, -1, 0, 3, 1 << 70, 0.5, "", " ", "x", "\ud83d", "<s></s>", [], {}, True, [[]], {"a": "b"}]
    )


def attempt(ckpt: Checkpoint, tokenizer: Any, target: Target, **options: Any) -> bool:
    """Open a task and lay out two rows; whether it was taken.

    Raises:
        Exception: of any kind but ForqError, which is the answer wanted.
    """
    try:
        tokenizer = open_tokenizer(ckpt) if tokenizer is None else tokenizer
        task = registry.get("tasks", target.task).open(target.data, tokenizer, seed=0, **target.options, **options)
        reading(tokenizer, ckpt, Path(options["template"]) if "template" in options else None)
        json.dumps(account(task).plain())
        for row in task.rows["train"][:2]:
            for segment in task.segments(row):
                spellings(tokenizer, segment.tokens)
    except ForqError:
        return False
    return True


class Fuzz:
    """Good files in a scratch folder, and one damaged copy after another."""

    def __init__(self, scratch: Path, seed: int) -> None:
        self.scratch, self.draw = scratch, random.Random(f"rows {seed}")
        base = gptq.example(scratch / "base")
        settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
        (base / "config.json").write_text(json.dumps(settings | {"vocab_size": 300}), encoding="utf-8")
        tiny_lm.tokenizer(vocabulary=300).save_pretrained(base)
        (base / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
        (base / "generation_config.json").write_text(json.dumps(GENERATION), encoding="utf-8")
        self.base = Checkpoint.open(base)
        self.tokenizer = open_tokenizer(self.base)
        self.targets = targets(scratch / "good")
        for target in self.targets:
            if not attempt(self.base, None, target):
                raise RuntimeError(f"{target.data} is refused before it is damaged")
        self.chat = next(target for target in self.targets if target.data.name == "chat.jsonl")

    def turn(self, number: int) -> bool:
        """One damaged copy; whether it was taken."""
        kinds = (self.rows, self.rows, self.rows, self.template, self.template, self.tokenizer_file)
        return kinds[number % len(kinds)]()

    def rows(self) -> bool:
        target = self.draw.choice(self.targets)
        copy = self.fresh(target.folder)
        self.damage(self.draw.choice(sorted(copy.iterdir())))
        moved = Target(target.task, copy, copy / target.data.relative_to(target.folder), target.options)
        return attempt(self.base, self.tokenizer, moved)

    def template(self) -> bool:
        file = self.scratch / "chat.jinja"
        file.write_text(TEMPLATE, encoding="utf-8")
        self.damage(file)
        return attempt(self.base, self.tokenizer, self.chat, template=str(file))

    def tokenizer_file(self) -> bool:
        copy = self.fresh(self.base.folder)
        names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
        self.damage(
            copy / self.draw.choice([name for name in (*names, "chat_template.jinja") if (copy / name).exists()])
        )
        return attempt(Checkpoint.open(copy), None, self.chat)

    def fresh(self, folder: Path) -> Path:
        shutil.rmtree(self.scratch / "bad", ignore_errors=True)
        return Path(shutil.copytree(folder, self.scratch / "bad"))

    def damage(self, file: Path) -> None:
        file.write_bytes(damaged(file.read_bytes(), self.draw))


def fuzz(count: int, seed: int) -> tuple[int, int]:
    """How many damaged copies were refused, and how many taken.

    Raises:
        RuntimeError: some ended in something else; the message holds a traceback for each place.
    """
    refused, wrong = 0, dict[str, str]()
    late = signal.signal(signal.SIGALRM, _late)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Fuzz(Path(scratch), seed)
        for number in range(count):
            signal.alarm(LIMIT_S)
            try:
                refused += not made.turn(number)
            except BaseException as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                what = "".join(traceback.format_exception(error)[-8:])
                wrong.setdefault(f"{type(error).__name__} {place.filename}:{place.lineno}", f"turn {number}:\n{what}")
            finally:
                signal.alarm(0)
    signal.signal(signal.SIGALRM, late)
    if wrong:
        raise RuntimeError(f"seed {seed}: {len(wrong)} kinds of traceback\n\n" + "\n".join(wrong.values()))
    return refused, count - refused


def _late(signum: int, frame: object) -> None:
    raise TimeoutError(f"a damaged copy was not answered for within {LIMIT_S} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        refused, taken = fuzz(args.count, args.seed)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"refused": refused, "taken": taken}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
