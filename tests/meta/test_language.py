"""What no file of the project may hold: a developer's paths, and notes on unfinished work."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUFFIXES = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
    ".html",
    ".css",
    ".json",
    ".jsonl",
    ".sh",
}
NAMES = {"Makefile", "run", "LICENSE", ".gitignore"}
SKIPPED = {"build", "dist", "runs", "node_modules", "__pycache__"}

# Spelled with one-letter classes, so that this file passes its own check.
FORBIDDEN = {
    "a path of somebody's machine": r"(?<![\w.<{}~-])/(?:h[o]me|U[s]ers|w[o]rk|r[o]ot)/\w",
    "a note on unfinished work": r"\b(?:T[O]DO|F[I]XME|X{3}|H[A]CK)\b",
    "a conflict marker": r"^(?:<{7}|>{7}|={7})(?: |$)",
}
SEEDED = [
    ("notes.md", "see /ho_me/ada/parity", "a path of somebody's machine"),
    ("Makefile", "PYTHON = /wo_rk/env/bin/python", "a path of somebody's machine"),
    ("parity/rng.py", "x = 1  # TO_DO: seed", "a note on unfinished work"),
    (".ci/run", "# FIX_ME", "a note on unfinished work"),
    ("a.toml", "<<<_<<<< HEAD", "a conflict marker"),
]


def project_files(root):
    """Return the text files of the project; hidden folders but `.ci` are tools' own."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and (path.suffix in SUFFIXES or path.name in NAMES)
        and not SKIPPED & set(path.relative_to(root).parts)
        and all(part == ".ci" or part[0] != "." for part in path.relative_to(root).parent.parts)
    ]


def describe_findings(root):
    """Return a line `file:line: what` for each line that holds what it may not."""
    return [
        f"{path.relative_to(root)}:{number}: {what}"
        for path in project_files(root)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for what, pattern in FORBIDDEN.items()
        if re.search(pattern, line)
    ]


def test_files_name_no_machine_and_no_unfinished_work():
    assert describe_findings(ROOT) == []


def test_files_of_every_part_are_read():
    folders = {path.relative_to(ROOT).parts[0] for path in project_files(ROOT)}

    assert {"parity", "models_torch", "models_keras", "conversion", "tests", "README.md"} <= folders


@pytest.mark.parametrize(("name", "line", "what"), SEEDED)
def test_finding_names_file_and_line(tmp_path, name, line, what):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n" + line.replace("_", ""), encoding="utf-8")

    assert describe_findings(tmp_path) == [f"{name}:2: {what}"]


@pytest.mark.parametrize(
    "line", ["results/home/x", "https://x.org/work/a", "/usr/share/x", "todos"]
)
def test_plain_text_is_no_finding(tmp_path, line):
    (tmp_path / "notes.md").write_text(line, encoding="utf-8")

    assert describe_findings(tmp_path) == []
