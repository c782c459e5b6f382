"""Lists and mappings that a table's cell spells as text, because CSV and TSV have no way of their own to hold them."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from itertools import pairwise

from forq.tasks.rows.json_rows import check, parsed

# Only what holds texts: "[5]" and "{x | x > 0}" may be answers themselves.
_SPELLED = re.compile(r"""\s*(\{\s*[uUbB]?['"]|\[\s*([uUbB]?['"]|\{|array\()|array\(|\[\s*\]\s*$|\{\s*\}\s*$)""")
_BETWEEN = (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT)


def nested(text: str) -> object:
    """The list or mapping of texts that a text spells; the text itself if it does not begin like one.

    The text is JSON, or what Python writes for a value: ``csv.DictWriter`` writes
    ``{'text': ['a'], 'answer_start': [3]}``, and pandas writes
    ``{'text': array(['a'], dtype=object), 'answer_start': array([3])}``.

    Raises:
        ValueError: the text begins like a list or a mapping of texts, and spells none exactly.
    """
    if not _SPELLED.match(text):
        return text
    try:
        value = parsed(text)
    except json.JSONDecodeError:
        value = _literal(text.strip())
    if not isinstance(value, list | dict):
        raise ValueError(f"a {type(value).__name__}, which is neither a list nor a mapping")
    return value


def _literal(text: str) -> object:
    """The value of a Python literal, in which ``array([…], dtype=…)`` stands for its list."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an escape that Python does not know
            value: object = ast.literal_eval(_Lists().visit(ast.parse(text, mode="eval")))
            together = _run_together(text)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ValueError("neither JSON nor a Python literal") from error
    if together:
        raise ValueError("texts without a comma between them")
    check(value)
    return value


def _run_together(text: str) -> bool:
    """Whether two texts stand side by side: NumPy prints ``['a' 'b']``, which Python would read as one text."""
    kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
    kinds = [kind for kind in kinds if kind not in _BETWEEN]
    return any(pair == (tokenize.STRING, tokenize.STRING) for pair in pairwise(kinds))


class _Lists(ast.NodeTransformer):
    """Replaces NumPy's ``array([…], dtype=…)`` with the list in it."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        named = isinstance(node.func, ast.Name) and node.func.id == "array"
        return self.visit(node.args[0]) if named and len(node.args) == 1 else node
