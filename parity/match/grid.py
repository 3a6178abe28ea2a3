"""The grid of an ablation: one recipe under each value of one key, for each number of epochs."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from parity.errors import RecipeError
from parity.spec.recipe import ResolvedRecipe, apply_overrides

# A quoted string, a bracket, a comma, or anything up to the next of these.
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'|[\[\]{},]|[^"\'\[\]{},]+|["\']')
_OPENS, _CLOSES = frozenset("[{"), frozenset("]}")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting of the grid.

    Attributes:
        value: Of the varied key, as it was written.
        length: Index into the numbers of epochs.
        name: What its run folders are named after.
        recipe: What it trains by.
    """

    value: str
    length: int
    name: str
    recipe: ResolvedRecipe


def parse_vary(text: str) -> tuple[str, tuple[str, ...]]:
    """Return key and values of `KEY=V1,V2,...`.

    >>> parse_vary("augment.flip=none,random")
    ('augment.flip', ('none', 'random'))
    >>> parse_vary('loss={kind="a", smoothing=0.1},{kind="b"}')[1]
    ('{kind="a", smoothing=0.1}', '{kind="b"}')

    Raises:
        RecipeError: If there is no key, a value is empty, given twice or alone, or a bracket or
            quote has no partner.
    """
    key, separator, joined = text.partition("=")
    if not separator or not key.strip():
        message = f"--vary {text!r}: expected KEY=V1,V2, such as augment.flip=none,random."
        raise RecipeError(message)
    values = split_values(joined)
    repeated = sorted({value for value in values if values.count(value) > 1})
    problem = ""
    if "" in values:
        problem = "a value between each two commas; got an empty one"
    elif len(values) == 1:
        problem = f"two values or more; got {values[0]!r} alone"
    elif repeated:
        problem = f"each value once; got {', '.join(repeated)} more than once"
    if problem:
        message = f"--vary {text!r}: expected {problem}."
        raise RecipeError(message)
    return key.strip(), values


def split_values(text: str) -> tuple[str, ...]:
    """Return what stands between the commas that are in no bracket and no quotes.

    >>> split_values('[1, 2], "a,b" ,0.5')
    ('[1, 2]', '"a,b"', '0.5')

    Raises:
        RecipeError: If a bracket or quote has no partner.
    """
    parts, depth = [""], 0
    for token in _TOKEN.findall(text):
        depth += (token in _OPENS) - (token in _CLOSES)
        if depth < 0 or token in ('"', "'"):
            break
        if token == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += token
    else:
        if depth == 0:
            return tuple(part.strip() for part in parts)
    message = (
        f"--vary: {text!r}: expected every bracket and quote closed. Quote the whole for the shell."
    )
    raise RecipeError(message)


def parse_epochs(text: str) -> tuple[int | float, ...]:
    """Return the numbers of epochs in `E1,E2,...`, in ascending order; whole ones are ints.

    >>> parse_epochs("8,2,1.5")
    (1.5, 2, 8)

    Raises:
        RecipeError: If one is no number or below 1, or is there twice.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        message = f"--epochs {text!r}: expected numbers such as 1,2,4; {error}."
        raise RecipeError(message) from error
    wrong = [f"{number:g}" for number in numbers if not 1 <= number < math.inf]
    if wrong:
        message = f"--epochs {text!r}: each must be >= 1 and finite; got {', '.join(wrong)}."
        raise RecipeError(message)
    repeated = sorted({number for number in numbers if numbers.count(number) > 1})
    if repeated:
        got = ", ".join(f"{number:g}" for number in repeated)
        message = f"--epochs {text!r}: expected each once; got {got} more than once."
        raise RecipeError(message)
    return tuple(int(number) if number.is_integer() else number for number in sorted(numbers))


def build_cells(
    recipe: ResolvedRecipe,
    *,
    key: str,
    values: Sequence[str],
    epochs: Sequence[float] = (),
) -> tuple[Cell, ...]:
    """Return a recipe under each value of a key, for each number of epochs, its own if none.

    Raises:
        RecipeError: If the key is unknown, a value is wrong, or two values give one recipe.
    """
    if key == "epochs" and epochs:
        message = "--vary epochs: expected no --epochs beside it. Leave one of the two out."
        raise RecipeError(message)
    cells = []
    for length, number in enumerate(epochs or [recipe.epochs]):
        overrides = [f"epochs={number}"] if epochs else []
        for index, value in enumerate(values):
            varied = _with_value(recipe, key, value, overrides)
            slug = re.sub(r"[^A-Za-z0-9.]+", "_", value).strip("_.")[:40]
            name = f"epochs{varied.epochs:g}-value{index}-{slug}".rstrip("-")
            cells.append(Cell(value=value, length=length, name=name, recipe=varied))
    _require_distinct(cells, key)
    return tuple(cells)


def _with_value(
    recipe: ResolvedRecipe, key: str, value: str, overrides: Sequence[str]
) -> ResolvedRecipe:
    try:
        return apply_overrides(recipe, [f"{key}={value}", *overrides])
    except RecipeError as error:
        message = f"--vary {key}: {error}"
        raise RecipeError(message) from error


def _require_distinct(cells: Sequence[Cell], key: str) -> None:
    first: dict[str, Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.recipe.digest(), cell)
        if other is not cell:
            message = (
                f"--vary {key}: expected values that give different recipes; {other.value!r} and "
                f"{cell.value!r} give the same one. Leave one of them out."
            )
            raise RecipeError(message)
