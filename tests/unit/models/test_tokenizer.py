"""A tokenizer beside its checkpoint: which ids it may give, what ends a text, and what is said of it."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import forq
from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, FormatError
from forq.models.tokenizer import CheckpointTokenizer, open_tokenizer, reading
from forq.runs import config as configs
from forq.runs.config import complete
from forq.runs.fixed_options import source_run, task_of_run
from forq.runs.header import header
from forq.runs.open_task import open_task
from forq.runs.run import Run
from forq.tasks import completion
from forq.tasks.kinds.completion import pack
from forq.tokens.model import LanguageModel
from forq.tokens.text import end_of_text
from tests.chat_templates import CHATML, DATED, LLAMA, tokenizer

ROWS = [{"prompt": "film number", "completion": f" {n}"} for n in range(9)]
CHATS = [
    {"messages": [{"role": "user", "content": f"film {n}"}, {"role": "assistant", "content": "good"}]} for n in range(9)
]


def written(folder, rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def changed(file, **values):
    told = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(told | values))


@pytest.fixture
def folder(base, tmp_path):
    """A checkpoint of one's own to change the files of."""
    return Path(shutil.copytree(base, tmp_path / "model"))


def test_a_token_without_a_row_in_the_embedding_is_named_before_a_run_begins(folder, tmp_path):
    told = json.loads((folder / "tokenizer.json").read_text())
    told["added_tokens"].append({**told["added_tokens"][0], "id": 300, "content": "<|late|>"})
    (folder / "tokenizer.json").write_text(json.dumps(told))
    settings = {"task": {"max_length": 32}}
    data = written(tmp_path, [*ROWS, {"prompt": "film <|late|>", "completion": " 3"}])
    with pytest.raises(FormatError, match=r"gives '<\|late\|>' the id 300, and the model's embedding has 300 rows"):
        forq.tune(folder, "completion", data, steps=1, out=tmp_path / "run", settings=settings)
    assert not (tmp_path / "run").exists()
    with pytest.raises(FormatError, match="the id 300"):
        (tmp_path / "a.txt").write_text("film <|late|> " * 2000)
        forq.tune(folder, "text", tmp_path / "a.txt", steps=1, out=tmp_path / "run", settings=settings)
    changed(folder / "tokenizer_config.json", eos_token="<|late|>")
    with pytest.raises(FormatError, match="the id 300"):
        forq.tune(folder, "completion", written(tmp_path, ROWS), steps=1, out=tmp_path / "run", settings=settings)
    opened = open_task(
        configs.task_config("completion", str(written(tmp_path, ROWS)), ["task.end=false"]), forq.load(folder), 0
    )
    assert opened.describe()["rows"]["train"] == 7, "a token that never occurs is no error"


class Scripted(torch.nn.Module, LanguageModel):
    """Writes the same tokens after every prompt."""

    def __init__(self, script):
        super().__init__()
        self.config, self._script = SimpleNamespace(), script

    def takes_packed(self, part):
        return False

    def scored_logits(self, batch):
        raise AssertionError("nothing is scored")

    def reader(self, prompts):
        script = iter(self._script)
        return lambda tokens: torch.nn.functional.one_hot(torch.tensor([next(script)] * len(prompts)), 400).float()


@pytest.mark.parametrize("stop", ["<|im_end|>", "</s>", "<|eot_id|>"])
def test_an_answer_ends_at_any_of_the_models_ends(tmp_path, stop):
    own = tokenizer(CHATML)
    checked = CheckpointTokenizer(own, 400, (own.convert_tokens_to_ids("<|eot_id|>"),), tmp_path)
    task = completion.open(written(tmp_path, ROWS), checked, seed=0, new_tokens=20)
    further = own(" 3" + stop + " bad bad bad bad bad bad", add_special_tokens=False)["input_ids"]
    (answer,) = task.answers(Scripted(further), pack(task.rows["test"][:1]))
    assert answer.text == " 3"


def test_a_tokenizer_model_alone_names_the_extra(folder, monkeypatch):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package sentencepiece: pip install 'forq\[sentencepiece\]'"):
        open_tokenizer(Checkpoint.open(folder))
    (folder / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(ConfigError, match="needs the package tiktoken: pip install tiktoken"):
        open_tokenizer(Checkpoint.open(folder))


def said(folder, template=None):
    ckpt = Checkpoint.open(folder)
    return reading(open_tokenizer(ckpt), ckpt, template)


def test_one_line_says_how_texts_are_read(folder, tmp_path):
    (folder / "generation_config.json").unlink()
    plain = said(folder)
    assert plain.line == "no chat template, BOS by the tokenizer, generation stops at </s> (config.json)"
    assert (plain.template_source, plain.bos, plain.ends, plain.notes) == (None, "tokenizer", (1,), ())
    changed(folder / "generation_config.json", eos_token_id=[5, 1])
    changed(folder / "tokenizer_config.json", chat_template=LLAMA.replace("<|eot_id|>", "</s>"))
    chat = said(folder)
    assert chat.line == (
        "chat template from tokenizer_config.json, BOS by the template, turns end with </s>, generation also stops at "
        "$ (generation_config.json)"
    )
    assert (chat.bos, chat.ends) == ("template", (1, 5))
    (tmp_path / "mine.jinja").write_text(CHATML.replace("<|im_end|>", "</s>"))
    mine = said(folder, tmp_path / "mine.jinja")
    assert mine.template_source == str(tmp_path / "mine.jinja")
    assert "BOS by the tokenizer in plain texts, none in conversations" in mine.line
    changed(folder / "generation_config.json", eos_token_id="</s>")
    with pytest.raises(FormatError, match="a token id or a list of them"):
        open_tokenizer(Checkpoint.open(folder))


def test_files_that_disagree_are_named_and_which_is_followed(folder):
    told = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(told | {"post_processor": None}))
    changed(folder / "tokenizer_config.json", add_bos_token=True)
    (note,) = said(folder).notes
    assert "says add_bos_token true" in note and "writes none: forq follows transformers, no BOS" in note
    changed(folder / "tokenizer_config.json", add_bos_token=False, tokenizer_class="LlamaTokenizer")
    (note,) = said(folder).notes
    assert note.startswith("tokenizer_config.json names LlamaTokenizer, and transformers loads TokenizersBackend")
    changed(folder / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")  # splits numbers into digits
    (note,) = said(folder).notes
    assert note.startswith("tokenizer.json splits texts differently from Qwen2Tokenizer")


def test_a_run_stopped_and_resumed_a_minute_later_renders_the_same_date(base, tmp_path, monkeypatch):
    (tmp_path / "dated.jinja").write_text(DATED)
    data = written(tmp_path, CHATS)
    config = complete(
        "qzo",
        [f"task.template={tmp_path / 'dated.jinja'}", "task.batch_rows=2"],
        steps=1,
        checkpoint=str(base),
        task=configs.TaskConfig(name="completion", data=str(data)),
    )
    model = forq.load(base)
    run = Run.begin(tmp_path / "run", config, model, open_task(config.task, model, 0))
    kept = configs.read(tmp_path / "run" / "config.toml")
    assert kept.task.options["moment"] == header(run.trainer)["task"]["moment"]

    class Later(completion.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 1, 12, 0, 1)

    monkeypatch.setattr("forq.tokens.moment.datetime", Later)
    resumed = Run.resume(tmp_path / "run", kept, model, open_task(kept.task, model, 0))
    assert resumed.task.digest == run.task.digest != open_task(config.task, model, 0).digest
    assert (
        task_of_run(source_run(str(tmp_path / "run")), config.task)[0].options["moment"] == kept.task.options["moment"]
    )


def test_a_run_of_before_its_ignored_fields_were_named_resumes(base, tmp_path):
    data = written(tmp_path, [{**row, "id": 3} for row in ROWS])
    config = complete("qzo", steps=1, checkpoint=str(base), task=configs.TaskConfig(name="completion", data=str(data)))
    model = forq.load(base)
    task = open_task(config.task, model, 0)
    assert task.describe()["ignored"] == ["id"]
    rewarded = open_task(config.task.model_copy(update={"reward": "accuracy"}), model, 0)
    assert "ignored" not in rewarded.describe(), "a reward is given every field"
    before = SimpleNamespace(describe=lambda: {k: v for k, v in task.describe().items() if k != "ignored"})
    Run.begin(tmp_path / "run", config, model, before)
    Run.resume(tmp_path / "run", config, model, task)


def test_a_tokenizer_whose_files_are_damaged_is_refused_by_name(folder):
    changed(folder / "tokenizer_config.json", model_max_length={})
    with pytest.raises(FormatError, match=r"the tokenizer cannot encode 'film': TypeError"):
        open_tokenizer(Checkpoint.open(folder))("film")
    changed(folder / "generation_config.json", eos_token_id=[1, 1 << 70])
    with pytest.raises(FormatError, match=r"generation_config\.json: expected a token id .* eos_token_id"):
        open_tokenizer(Checkpoint.open(folder))
    changed(folder / "generation_config.json", eos_token_id=[1, -1])
    assert open_tokenizer(Checkpoint.open(folder)).generation_ends == (1,)
    missing = SimpleNamespace(eos_token="<|gone|>", convert_tokens_to_ids=lambda token: None)
    with pytest.raises(FormatError, match=r"names '<\|gone\|>' as its EOS, which its vocabulary does not hold"):
        end_of_text(missing)
