"""Conversations: the tokens are those of transformers, and what is learned is the assistant's turns with their ends."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forq.errors import ConfigError, DataError
from forq.tasks import completion
from tests.chat_templates import BLOCKS, CHATML, DATED, END, GEMMA, LLAMA, PHI, QWEN, TEMPLATES, tokenizer

ASK = {"role": "user", "content": "What is 3+2?"}
SHORT = [ASK, {"role": "assistant", "content": "5"}]
LONG = [*SHORT, {"role": "user", "content": "film 4?"}, {"role": "assistant", "content": "good\n\nbad 7"}]


def opened(folder, rows, template, own=None, **options):
    """A task of rows that are lists of turns or whole rows; few rows are repeated, so that every split has some."""
    whole = [row if isinstance(row, dict) else {"messages": row} for row in rows]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in whole * 3), encoding="utf-8")
    return completion.open(path, own or tokenizer(template), seed=0, max_length=2000, **options)


def learned(task, place=0):
    """The stretches of a training row that are scored, as texts."""
    row = task.rows["train"][place]
    stretches: list[list[int]] = []
    for at in row.scored:
        if stretches and stretches[-1][-1] == at - 1:
            stretches[-1].append(at)
        else:
            stretches.append([at])
    return [task.tokenizer.decode([row.tokens[at] for at in stretch]) for stretch in stretches]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [SHORT, LONG], ids=["short", "long"])
def test_the_tokens_are_those_of_transformers(tmp_path, name, messages):
    own, moment = tokenizer(TEMPLATES[name]), "2026-11-28T09:30:00"
    task = opened(tmp_path, [messages], None, own, moment=moment)
    template = TEMPLATES[name].replace("strftime_now('%d %b %Y, %H:%M:%S, 100%%')", "'28 Nov 2026, 09:30:00, 100%'")
    theirs = own.apply_chat_template(messages, chat_template=template, tokenize=True)["input_ids"]
    assert {row.tokens for row in task.rows["train"]} == {tuple(theirs)}


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in ("blocks", "qwen", "mistral")])
def test_learned_are_the_turns_of_the_assistant_with_their_ends(tmp_path, name):
    end = END.get(name, "<|im_end|>")
    assert learned(opened(tmp_path, [SHORT], TEMPLATES[name])) == ["5" + end]
    assert learned(opened(tmp_path, [LONG], TEMPLATES[name])) == ["5" + end, "good\n\nbad 7" + end]


def test_a_template_without_a_generation_prompt_leaves_the_space_to_the_model(tmp_path):
    assert learned(opened(tmp_path, [LONG], TEMPLATES["mistral"])) == [" 5</s>", " good\n\nbad 7</s>"]


def test_a_generation_block_is_learned_as_it_stands(tmp_path):
    task = opened(tmp_path, [LONG], BLOCKS)
    assert learned(task) == ["5<|im_end|>\n", "good\n\nbad 7<|im_end|>\n"]
    mask = task.tokenizer.apply_chat_template(LONG, return_assistant_tokens_mask=True, return_dict=True)
    places = tuple(place for place, own in enumerate(mask["assistant_masks"]) if own)
    assert task.rows["train"][0].scored == places


def test_bos_stands_once_and_no_end_is_appended(tmp_path):
    for template, bos in ((LLAMA, 1), (GEMMA, 1), (CHATML, 0)):
        (row,) = set(opened(tmp_path, [SHORT], template).rows["train"])
        assert row.tokens.count(0) == bos, "the tokenizer's BOS stands beside the template's"
        assert 1 not in row.tokens and len(row.scored) == 2, "the tokenizer's end follows the template's"


def test_earlier_reasoning_is_dropped_as_the_template_drops_it(tmp_path):
    thought = "<think>\nbad\n</think>\n\ngood"
    turns = [ASK, {"role": "assistant", "content": thought}, ASK, {"role": "assistant", "content": thought}]
    assert learned(opened(tmp_path, [turns], QWEN)) == ["good<|im_end|>", f"{thought}<|im_end|>"]
    kept = [ASK, {"role": "assistant", "content": "good", "reasoning_content": "bad"}]
    assert learned(opened(tmp_path, [kept], QWEN)) == [f"{thought}<|im_end|>"]


def test_what_a_generation_prompt_says_is_given(tmp_path):
    row = {"messages": LONG, "enable_thinking": False}
    task = opened(tmp_path, [row], QWEN)
    assert learned(task) == ["5<|im_end|>", "good\n\nbad 7<|im_end|>"] and "ignored" not in task.describe()


def test_dropped_reasoning_leaves_the_turn_where_its_head_ends(tmp_path):
    turns = [ASK, {**SHORT[1], "reasoning_content": "bad"}, *LONG[2:]]
    row = {"messages": turns, "chat_template_kwargs": {"enable_thinking": False}}
    assert learned(opened(tmp_path, [row], QWEN))[0] == "5<|im_end|>"


def test_a_template_may_end_the_last_turn_alone(tmp_path):
    template = TEMPLATES["plain"].replace("{% endfor %}", "{% if loop.last %}{{ eos_token }}{% endif %}{% endfor %}")
    assert learned(opened(tmp_path, [LONG], template)) == ["5\n", "good\n\nbad 7\n</s>"]


def test_a_conversation_may_begin_with_system_or_assistant(tmp_path):
    refuses = "{% if messages[-1].role == 'system' %}{{ raise_exception('no question') }}{% endif %}" + CHATML
    turns = [{"role": "system", "content": "film"}, *SHORT]
    assert learned(opened(tmp_path, [turns], refuses)) == ["5<|im_end|>"]
    assert learned(opened(tmp_path, [[{"role": "assistant", "content": "film"}, *SHORT]], CHATML)) == [
        "film<|im_end|>",
        "5<|im_end|>",
    ]


@pytest.mark.parametrize("template", [CHATML, BLOCKS, PHI])
@pytest.mark.parametrize("says", [{"weight": 0}, {"train": False}])
def test_a_turn_of_weight_0_is_read_and_not_learned(tmp_path, template, says):
    turns = [ASK, {"role": "assistant", "content": "bad", **says}, *SHORT]
    task = opened(tmp_path, [turns], template)
    (stretch,) = learned(task)
    assert stretch.startswith("5") and "bad" in task.tokenizer.decode(list(task.rows["train"][0].tokens))
    assert "ignored" not in task.describe()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [ASK, {**SHORT[1], "weight": 0.5}]}, "weight of 0 or 1 on a turn, found 0.5"),
        ({"messages": [ASK, {**SHORT[1], "weight": 0}]}, "every turn of the assistant has weight 0"),
        ({"messages": [ASK, {"role": "assistant", "content": [{"text": "a"}, {"text": "b"}]}]}, "2 parts: join them"),
        ({"messages": [ASK, {"role": "assistant", "content": 5}]}, "a list of role and content"),
        ({"messages": [ASK, {"role": "assistant"}]}, "a list of role and content"),
        ({"messages": SHORT, "chat_template_kwargs": 3}, "chat_template_kwargs to be an object"),
    ],
)
def test_a_row_that_cannot_be_learned_exactly_is_refused_with_its_line(tmp_path, row, says):
    with pytest.raises(DataError, match=r"rows\.jsonl, line \d: ") as refused:
        opened(tmp_path, [row], CHATML)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for m in messages %}{{ m.content }} {{ m.content }}{% endfor %}", "writes its content 2 times"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "writes its content 0 times"),
        ("{{ raise_exception('not today') }}", "the chat template refuses it: not today"),
    ],
)
def test_a_template_that_hides_a_turn_is_refused(tmp_path, template, says):
    with pytest.raises(DataError, match="line") as refused:
        opened(tmp_path, [SHORT], template)
    assert says in str(refused.value)


def test_half_a_surrogate_pair_is_refused_with_its_line(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "smile \\ud83d", "completion": "good"}\n' * 5)
    with pytest.raises(DataError, match=r"rows\.jsonl, line \d"):
        completion.open(tmp_path / "rows.jsonl", tokenizer(), seed=0)


def test_a_content_of_one_text_part_is_its_text(tmp_path):
    parts = [ASK, {"role": "assistant", "content": [{"type": "text", "text": "5"}]}]
    assert learned(opened(tmp_path, [parts], CHATML)) == ["5<|im_end|>"]
    native = CHATML.replace(
        "m.content", "(m.content if m.content is string else m.content | map(attribute='text') | join)"
    )
    two = [ASK, {"role": "assistant", "content": [{"type": "text", "text": "5"}, {"type": "text", "text": " 6"}]}]
    assert learned(opened(tmp_path, [two], native)) == ["5 6<|im_end|>"]
    quoted = CHATML.replace("m.content", "(m.content | trim)")  # would write the list itself
    assert learned(opened(tmp_path, [parts], quoted)) == ["5<|im_end|>"]
    with pytest.raises(DataError, match="found a content of 2 parts"):
        opened(tmp_path, [two], quoted)


_TEXTS = "m.content | selectattr('type', 'eq', 'text') | map(attribute='text') | join"
PARTS = CHATML.replace("m.content", f"(m.content if m.content is string else {_TEXTS})")
"""Writes parts of type text alone."""


@pytest.mark.parametrize("template", [CHATML, PARTS])
@pytest.mark.parametrize(("asks", "answers"), [("input_text", "output_text"), (None, None)])
def test_texts_of_responses_are_text(tmp_path, template, asks, answers):
    kinds = [{} if kind is None else {"type": kind} for kind in (asks, answers)]
    turns = [
        {"role": "user", "content": [{**kinds[0], "text": ASK["content"]}]},
        {"role": "assistant", "content": [{**kinds[1], "text": "5"}]},
    ]
    task, plain = opened(tmp_path, [turns], template), opened(tmp_path, [SHORT], template)
    assert [row.tokens for row in task.rows["train"]] == [row.tokens for row in plain.rows["train"]]
    assert learned(task) == ["5<|im_end|>"]


@pytest.mark.parametrize("template", [CHATML, PARTS])
@pytest.mark.parametrize("kind", ["document", "thinking", "refusal"])
def test_a_part_that_a_template_may_leave_out_is_refused(tmp_path, template, kind):
    for place, turn in enumerate(SHORT):
        parts = [{"type": "text", "text": "a"}] * bool(template == PARTS) + [{"type": kind, "text": "b"}]
        turns = [*SHORT[:place], {**turn, "content": parts}, *SHORT[place + 1 :]]
        with pytest.raises(DataError, match=f"turn {place + 1}: expected parts of type 'text', found '{kind}'"):
            opened(tmp_path, [turns], template)


@pytest.mark.parametrize("role", ["system", "assistant"])
@pytest.mark.parametrize("way", ["string", "trim"])
def test_a_role_whose_parts_a_template_writes_as_a_list_is_refused(tmp_path, role, way):
    """As Llama 3.2 Vision's template does with the system turn, and apply_chat_template with it."""
    given = f"(({_TEXTS}) if m.role != '{role}' and m.content is not string else m.content | {way})"
    turns = [{"role": "system", "content": "s"}, ASK, {"role": "assistant", "content": "it's ö"}]
    place = [turn["role"] for turn in turns].index(role)
    turns[place] = {**turns[place], "content": [{"type": "text", "text": turns[place]["content"]}]}
    with pytest.raises(DataError, match=f"turn {place + 1}: the chat template takes no parts for the role '{role}'"):
        opened(tmp_path, [turns], CHATML.replace("m.content", given))


@pytest.mark.parametrize("content", ["", " \n", [], [{"type": "text", "text": ""}]])
@pytest.mark.parametrize("template", [CHATML, PARTS, BLOCKS])
def test_an_answer_without_content_is_not_learned(tmp_path, template, content):
    if isinstance(content, list) and template != PARTS:
        content = [{"text": ""}]
    empty = {"role": "assistant", "content": content}
    with pytest.raises(DataError, match="turn 2: the assistant's content is empty, so that only its end"):
        opened(tmp_path, [[ASK, empty, *SHORT]], template)
    unlearned = opened(tmp_path, [[ASK, {**empty, "weight": 0}, *SHORT]], template)
    assert len(learned(unlearned)) == 1


def test_calls_of_tools_are_learned_with_their_turn(tmp_path):
    template = CHATML.replace(
        "m.content +", "(m.content or '') + (m.tool_calls | tojson if m.tool_calls else '') + (tools | tojson) +"
    )
    turns = [ASK, {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}, ASK, SHORT[1]]
    tools = [{"type": "function", "function": {"name": "add"}}]
    task = opened(tmp_path, [{"messages": turns, "tools": json.dumps(tools)}], template)
    said = json.dumps(tools)
    assert learned(task) == [f'[{{"name": "add"}}]{said}<|im_end|>', f"5{said}<|im_end|>"]
    assert "ignored" not in task.describe()


def test_a_template_for_tools_is_taken_where_a_row_has_some(tmp_path):
    own = tokenizer({"default": CHATML, "tool_use": "{{ tools | tojson }}" + CHATML})
    task = opened(tmp_path, [{"messages": SHORT, "tools": [{"name": "add"}]}], None, own)
    text = task.tokenizer.decode(list(task.rows["train"][0].tokens))
    assert text.startswith('[{"name": "add"}]<|im_start|>user') and "ignored" not in task.describe()


def test_fields_that_nothing_reads_are_named(tmp_path):
    turns = [{**ASK, "timestamp": 3, "weight": 0}, {**SHORT[1], "weight": 1}]
    rows = [{"messages": turns, "id": 1, "chat_template_kwargs": {"colour": "red"}, "bos_token": "x"}]
    task = opened(tmp_path, [*rows, {"prompt": "a", "completion": "b", "id": 2, "source": "c"}], CHATML)
    assert task.describe()["ignored"] == [
        "bos_token",
        "chat_template_kwargs.colour",
        "id",
        "messages[].timestamp",
        "messages[].weight (not the assistant's)",
        "source",
    ]
    whole = "{% for m in messages %}{{ m | tojson }}{% endfor %}"  # reads every field without naming one
    assert opened(tmp_path, [[{**ASK, "timestamp": 3}, SHORT[1]]], whole).describe().get("ignored") is None


def test_a_date_is_rendered_as_it_was_when_the_run_began(tmp_path, monkeypatch):
    task = opened(tmp_path, [SHORT], DATED)
    moment = task.describe()["moment"]

    class Later(completion.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 1, 12, 0, 1)

    monkeypatch.setattr("forq.tokens.moment.datetime", Later)
    assert opened(tmp_path, [SHORT], DATED, moment=moment).digest == task.digest
    assert opened(tmp_path, [SHORT], DATED).digest != task.digest
    assert "01 Jan 2031, 12:00:01, 100%" in task.tokenizer.decode(
        list(opened(tmp_path, [SHORT], DATED).rows["train"][0].tokens)
    )
    assert "moment" not in opened(tmp_path, [SHORT], CHATML).describe()
    with pytest.raises(ConfigError, match=r"task\.moment: expected a date"):
        opened(tmp_path, [SHORT], DATED, moment="yesterday")


@pytest.mark.parametrize(
    ("row", "starts", "ends"),
    [
        ({"prompt": "film", "completion": " good"}, 1, 1),
        ({"prompt": "<s>film", "completion": " good</s>"}, 1, 1),
        ({"prompt": "<s>film", "completion": " good</s>\n"}, 1, 1),
        ({"text": "<s>film good"}, 1, 1),
        (
            {
                "prompt": "<s><|im_start|>user\nfilm<|im_end|>\n<|im_start|>assistant\n",
                "completion": "good<|im_end|>\n",
            },
            1,
            0,
        ),
    ],
)
def test_ready_made_texts_get_no_second_bos_or_end(tmp_path, row, starts, ends):
    (made,) = set(opened(tmp_path, [row], CHATML).rows["train"])
    assert (made.tokens.count(0), made.tokens.count(1)) == (starts, ends)


@pytest.mark.parametrize("bos", [True, False])
def test_a_long_conversation_keeps_the_bos_its_template_wrote(tmp_path, bos):
    path = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "film " * 60}, SHORT[1]]
    path.write_text((json.dumps({"messages": turns}) + "\n") * 5)
    row = completion.open(path, tokenizer(LLAMA, bos), seed=0, max_length=20).rows["train"][0]
    assert len(row.tokens) == 20 and row.tokens[0] == 0 and row.cut > 0


words = st.text("ab 3\n.é🙂", min_size=1, max_size=8).filter(lambda text: bool(text.strip()))
chats = st.lists(st.tuples(words, words), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chats, st.sampled_from([name for name in TEMPLATES if name != "dated"]))
def test_whatever_is_said_only_the_assistant_is_learned(tmp_path, chat, name):
    turns = [
        {"role": role, "content": text} for pair in chat for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    own = tokenizer(TEMPLATES[name])
    task = opened(tmp_path, [turns], None, own)
    (row,) = set(task.rows["train"])
    assert list(row.tokens) == own.apply_chat_template(turns, tokenize=True)["input_ids"]
    assert max(row.tokens) < len(own) and row.tokens.count(0) <= 1
    stretches = learned(task)
    end = END.get(name, "<|im_end|>")
    assert len(stretches) == len(chat)
    for stretch, (asked, answer) in zip(stretches, chat, strict=True):
        body = stretch.replace("<think>\n\n</think>\n\n", "").rstrip("\n").removesuffix(end)
        assert body.strip() == answer.strip() and stretch.count(end.strip() or "\n") >= 1
        assert "<|im_start|>" not in stretch and "[INST]" not in stretch, asked
