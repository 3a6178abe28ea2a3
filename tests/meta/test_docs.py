"""Commands that the documents show exist as shown; nothing is trained to find out."""

import itertools
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer

from parity.data.table import DATASETS
from parity.spec.models import MODELS
from parity.spec.recipe import recipe_names

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^```(?:console|bash|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# How a command line starts -> the module of its typer application, and the command it stands for.
APPLICATIONS = {
    ("parity",): ("parity.cli", ()),
    ("python", "-m", "parity"): ("parity.cli", ()),
    ("python", "-m", "parity.train"): ("parity.cli", ("train",)),
    ("python", "-m", "conversion"): ("conversion.cli", ()),
}
# Option -> the names it takes.
NAMES = {"--recipe": recipe_names(), "--data": tuple(DATASETS), "--model": MODELS}


def shown_commands(text):
    """Return the command lines in the fenced console blocks of a document, split into words.

    A block with `$ ` prompts shows output too; only its prompted lines are commands.
    """
    lines = []
    for block in FENCE.findall(text):
        joined = block.replace("\\\n", " ").splitlines()
        prompted = [line[2:] for line in joined if line.startswith("$ ")]
        lines += prompted or joined
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def without_setting(words):
    """Return the words of a command after its variables, the environment's folder taken off."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []


def find_application(words):
    """Return the click command that a command line starts, and its remaining words."""
    for start, (module, command) in APPLICATIONS.items():
        if tuple(words[: len(start)]) == start:
            application = typer.main.get_command(import_module(module).app)
            return application, [*command, *words[len(start) :]]
    return None, words


def describe_command(words):
    """Return what does not exist in a command line, such as an option; None if all does."""
    command, rest = find_application(without_setting(words))
    if command is None:
        return None
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"{shlex.join(words)}: no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    given = [word.partition("=")[0] for word in rest if word.startswith("-")]
    unknown = [name for name in given if name not in {*options, "--help"}]
    return f"{shlex.join(words)}: no option {', '.join(unknown)}" if unknown else None


def unknown_names(words):
    """Return the recipes, data sets and models in a command line that do not exist."""
    pairs = [(word, value) for word, value in itertools.pairwise(words) if word in NAMES]
    return [
        f"{option} {value}"
        for option, value in pairs
        if value.partition(":")[0] not in NAMES[option] and not value.endswith(".toml")
    ]


def missing_targets(words):
    """Return what a `make` command asks for and the Makefile does not have."""
    if without_setting(words)[:1] != ["make"]:
        return []
    phony = re.search(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    asked = [
        word for word in without_setting(words)[1:] if not word.startswith("-") and "=" not in word
    ]
    return [target for target in asked if target not in phony[1].split()]


COMMANDS = [
    pytest.param(words, id=f"{path.name}: {shlex.join(words)}")
    for path in DOCUMENTS
    for words in shown_commands(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("words", COMMANDS)
def test_shown_command_has_its_options(words):
    assert describe_command(words) is None


@pytest.mark.parametrize("words", COMMANDS)
def test_shown_command_names_what_exists(words):
    assert unknown_names(words) == []


@pytest.mark.parametrize("words", COMMANDS)
def test_shown_make_target_exists(words):
    assert missing_targets(words) == []


def test_contributing_fits_on_a_page():
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 60


def test_changelog_has_unreleased_lines():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert re.search(r"^## Unreleased\n\n- ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("parity lockstop --recipe best_sgd", "no command lockstop"),
        ("python -m parity lockstep --step 3", "no option --step"),
        ("python -m parity.train --framwork keras", "no option --framwork"),
        ("python -m conversion a.pt b.weights.h5 --modle resnet18", "no option --modle"),
        ("KERAS_BACKEND=jax .venv/bin/parity lockstep --nets=2", "no option --nets"),
    ],
)
def test_command_that_does_not_exist_is_named(line, problem):
    assert describe_command(shlex.split(line)).endswith(problem)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("parity lockstep --recipe best_sdg --data digits", ["--recipe best_sdg"]),
        ("python -m conversion a b --model resnet19:width=8", ["--model resnet19:width=8"]),
        ("parity lockstep --recipe my/own.toml --model resnet8:width=32", []),
    ],
)
def test_name_that_does_not_exist_is_named(line, names):
    assert unknown_names(shlex.split(line)) == names


def test_make_target_that_does_not_exist_is_named():
    assert missing_targets(shlex.split("make -n parity tests BACKEND=jax")) == ["tests"]


@pytest.mark.parametrize(
    ("block", "commands"),
    [
        ("```console\n$ parity demo\nparity 0.1.0\n```\n", ["parity demo"]),
        ("```bash\nmake demo  # a minute\n\n```\n", ["make demo"]),
        ("```console\nparity lockstep \\\n  --steps 3\n```\n", ["parity lockstep --steps 3"]),
        ("```python\nparity.compare_models()\n```\n", []),
    ],
    ids=["prompt", "comment", "continued", "other language"],
)
def test_commands_are_read_from_console_blocks(block, commands):
    assert [shlex.join(words) for words in shown_commands(block)] == commands
