"""What a model is shown of a row: one text, two texts, or a template filled with the row's fields."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter

from forq.errors import ConfigError, DataError
from forq.tasks.kinds.examples import Asked
from forq.tasks.rows.record import Record

_END = "\nLabel:"


@dataclass(frozen=True, slots=True)
class Asking:
    """Turns rows into texts and prompts.

    Attributes:
        text, second: the fields of the texts; without ``second`` there is one.
        pattern: the template, with ``{field}`` where a field's text goes; ``{text}`` and ``{second}``
            are the two fields. None: the texts, each on its line, then ``Label:``.

    Raises:
        ConfigError: the template names no field, or holds something else in braces.
    """

    text: str
    second: str | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        if not self.fields:
            raise ConfigError(f"task.prompt: expected a field in braces, as in '{{text}}', found {self.pattern!r}")

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row that are read."""
        return tuple(dict.fromkeys(field for _, field in self._parts() if field is not None))

    @property
    def keep(self) -> str:
        """The end of a prompt, behind the last field."""
        literals: list[str] = []
        for literal, field in self._parts():
            literals = [] if field is not None else [*literals, literal]
        return "".join(literals)

    @property
    def empty(self) -> str:
        """The prompt of a row without texts."""
        return "".join(literal for literal, _ in self._parts()).lstrip()

    def asked(self, record: Record) -> Asked:
        """The texts of a row.

        Raises:
            DataError: a field is missing or empty.
        """
        plain = {field: self._value(record, field) for field in self.fields}
        values = {field: text.strip() for field, text in plain.items()}
        prompt = "".join(literal + ("" if field is None else values[field]) for literal, field in self._parts())
        if self.pattern is not None:
            return Asked(prompt.strip(), prompt)
        return Asked(" ".join(values.values()), prompt, tuple(plain.values()))

    def _parts(self) -> list[tuple[str, str | None]]:
        """Pieces of the template: a literal text, and the field that follows it."""
        if self.pattern is None:
            second = [] if self.second is None else [("\n", self.second)]
            return [("", self.text), *second, (_END, None)]
        own = {"text": self.text, "second": self.second}
        parts: list[tuple[str, str | None]] = []
        try:
            for literal, field, spec, conversion in Formatter().parse(self.pattern):
                if field is None:
                    parts.append((literal, None))
                    continue
                name = own.get(field, field)
                if spec or conversion or not name:
                    raise ConfigError(
                        f"task.prompt: expected names of fields in braces, found {{{field}}}"
                        + ("; name the second text with task.second=FIELD" if field == "second" else "")
                    )
                parts.append((literal, name))
        except ValueError as error:
            raise ConfigError(f"task.prompt: expected fields in braces, found {self.pattern!r}: {error}") from error
        return parts

    def _value(self, record: Record, field: str) -> str:
        if field not in record.fields:
            raise DataError(
                f"{record.where}: expected text in {field!r}, found {', '.join(map(repr, record.fields))}; name the "
                "field with task.text=FIELD (and task.second, task.prompt)"
            )
        value = record.fields[field]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise DataError(f"{record.where}: expected text in {field!r}, found {type(value).__name__}")
        text = str(value)
        if not text.strip():
            raise DataError(f"{record.where}: the text in {field!r} is empty")
        return text
