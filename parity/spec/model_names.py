"""Model names with options, such as `resnet8:width=32,dropout=0.1`: their grammar.

Which options a family takes is in the family's own file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from parity.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a family's names.

    Attributes:
        form: How its value is written, such as `width=CHANNELS`.
        pattern: What the whole value must match; empty where the spec checks it.
        expected: What the value must be, for the message.
    """

    form: str
    pattern: str = ""
    expected: str = ""


WIDTH = Option(form="width=CHANNELS", pattern=r"[1-9][0-9]*", expected="a whole number >= 1")


def split_name(name: str) -> tuple[str, str]:
    """Return the model and the text of its options.

    >>> split_name("resnet8:width=32")
    ('resnet8', 'width=32')
    """
    base, _, options = str(name).partition(":")
    return base, options


def parse_options(name: str, options: Mapping[str, Option]) -> dict[str, str]:
    """Return the values of a name's options, checked for their form.

    Raises:
        SpecError: If an option is unknown, given twice, or has a value of the wrong form.
    """
    base, text = split_name(name)
    if not text and str(name) != base:
        message = f"model {name!r}: expected options after ':', such as {base}:width=16; got none."
        raise SpecError(message)
    values: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, separator, value = part.partition("=")
        if not separator or key not in options:
            *forms, last = (option.form for option in options.values())
            listed = f"{', '.join(forms)} or {last}" if forms else last
            message = f"model {name!r}: option {part!r} must be {listed}."
            raise SpecError(message)
        option = options[key]
        if option.pattern and not re.fullmatch(option.pattern, value):
            message = f"model {name!r}: {key} must be {option.expected}; got {value!r}."
            raise SpecError(message)
        if key in values:
            message = f"model {name!r}: {key} is given twice."
            raise SpecError(message)
        values[key] = value
    return values
