"""Chat templates in the manner of published ones, written here, and a tokenizer that knows their special tokens."""

from __future__ import annotations

import copy
from typing import Any

from tokenizers import AddedToken

from tests import tiny_lm

LLAMA = """{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

CHATML = """{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor -%}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

GEMMA = """{{ bos_token }}{% for m in messages -%}
{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif -%}
{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}
{{- m.content | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

MISTRAL = """{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}
{%- else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"""

PHI = """{% for m in messages %}<|{{ m.role }}|>
{{ m.content }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% else %}{{ eos_token }}{% endif %}"""

QWEN = """{% set ns = namespace(last=0) %}{% for m in messages -%}
{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages -%}
{% set content = m.content %}{% set thought = m.reasoning_content or '' %}
{%- if m.role == 'assistant' and '</think>' in content %}
{%- set thought = content.split('</think>')[0].replace('<think>', '').strip() %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif -%}
{{ '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' and loop.index0 > ns.last %}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif -%}
{{ content + '<|im_end|>\\n' }}{% endfor -%}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking -%}
{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""

BLOCKS = """{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' -%}
{% generation %}{{ m.content + '<|im_end|>\\n' }}{% endgeneration %}
{%- else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor -%}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

PLAIN = """{% for m in messages %}{{ m.role }}:
{{ m.content }}
{% endfor %}{% if add_generation_prompt %}assistant:
{% endif %}"""

DATED = "{{ '<|im_start|>system\\nIt is ' + strftime_now('%d %b %Y, %H:%M:%S, 100%%') + '<|im_end|>\\n' }}" + CHATML

TEMPLATES = {
    "llama": LLAMA,
    "chatml": CHATML,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "phi": PHI,
    "qwen": QWEN,
    "blocks": BLOCKS,
    "plain": PLAIN,
    "dated": DATED,
}

END = {"llama": "<|eot_id|>", "gemma": "<end_of_turn>", "mistral": "</s>", "phi": "<|end|>", "plain": "\n"}
"""What ends the assistant's turns; <|im_end|> where nothing is said here."""

_SPECIAL = "<|start_header_id|> <|end_header_id|> <|eot_id|> <|im_start|> <|im_end|> <start_of_turn> <end_of_turn>"
SPECIAL = [*_SPECIAL.split(), "[INST]", "[/INST]", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]


def tokenizer(template: str | None = None, bos: bool = True) -> Any:
    """The tiny byte-level tokenizer with the templates' special tokens; ``bos``: it puts BOS before plain texts."""
    made = copy.deepcopy(tiny_lm.tokenizer(bos))
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    made.chat_template = template
    return made
