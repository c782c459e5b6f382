"""Fix the date and time that a chat template renders, so that a row gives the same tokens on every day."""

from __future__ import annotations

from datetime import datetime

from forq.errors import ConfigError

NOW = "strftime_now"
"""The function with which chat templates read the time."""

_DIRECTIVES = "aAbBcdfGHIjmMpSuUVwWxXyYzZeDFTRhnt"
_PERCENT = "\x00"


def parsed(text: str | None) -> datetime:
    """Parse the setting ``task.moment``; None gives the present time in whole seconds.

    Raises:
        ConfigError: the text is no date and time in ISO form.
    """
    if text is None:
        return datetime.now().replace(microsecond=0)
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"task.moment: expected a date and time in ISO form, as 2026-11-28T09:30:00, found {text!r}"
        ) from error


def fixed(template: str, moment: datetime) -> str:
    """Bind ``strftime_now`` in a template to a fixed moment.

    transformers reads the system clock and passes only plain data to templates, no functions. So the name is bound
    inside the template, by a macro that replaces every directive of a format by its value.
    """
    steps = [("%%", _PERCENT), *_values(moment), (_PERCENT, "%")]
    # The macro writes nothing else, and ends with the line break that Jinja drops behind a tag, so that what follows
    # stands at the start of a line, as it does in the original.
    return (
        f"{{%- macro {NOW}(format) -%}}{{%- set state = namespace(text=format) -%}}"
        f"{{%- for old, new in {steps!r} -%}}{{%- set state.text = state.text | replace(old, new) -%}}{{%- endfor -%}}"
        f"{{{{- state.text -}}}}{{%- endmacro %}}\n{template}"
    )


def _values(moment: datetime) -> list[tuple[str, str]]:
    pairs = []
    for letter in _DIRECTIVES:
        for directive in (f"%-{letter}", f"%{letter}"):
            try:
                value = moment.strftime(directive)
            except ValueError:  # not every platform knows every directive
                continue
            if value != directive:
                pairs.append((directive, value))
    return pairs
