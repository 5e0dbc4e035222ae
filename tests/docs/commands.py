"""What a line of a shell block is, and how it is tried.

Commands of nodebits run, on small data and for a few epochs. Others are looked at: what they name
must be there.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

# Data sets that are downloaded become the embedded one.
_EMBEDDED = {"digits", "digits-graphs", "rings"}
_SMALL = {
    "--graph": "random:200:1000",
    "--shape": "64x16x8",
    "--from": "1000",
    "--to": "2000",
    "--threads": "1",
    "--seeds": "1",
    "--budget": "3",
    "--max-drop": "100",
    "--hidden": "8",
    "--confirm-seeds": "1",
    "--epochs": "2",
    "--communities": "4",
    "--repeats": "1",
}
# What measurements of kernels run on where a line does not say.
_MEASURED = {"dense": ["--shape", "64x16x8"], "growth": ["--from", "1000", "--to", "2000"]}
_SHORT = {
    "quantize": ["--epochs", "2", "--hidden", "8", "--latency-repeats", "1", "--no-progress"],
    "compare": ["--epochs", "2", "--hidden", "8", "--latency-repeats", "1", "--no-progress"],
    "search": ["--epochs", "2", "--hidden", "8", "--fine-tune", "0", "--confirm-seeds", "1"],
    "bench": ["--budget", "0.1", "--repeats", "1"],
}
# Commands that are tried elsewhere: by the targets of make that CI runs.
_ELSEWHERE = ("cmake", "curl", "git", "cc", ".venv/bin/pre-commit", ".ci/run")


def commands_of(block: str) -> Iterator[list[str]]:
    """Returns the commands of a shell block as lists of words."""
    joined = re.sub(r"\\\n\s*", " ", block)
    variables: dict[str, str] = {}
    for line in joined.split("\n"):
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        words = shlex.split(line, comments=True)
        if words and words[0] in ("for", "done"):  # what is between is tried once
            continue
        while words and (match := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
            variables[match[1]] = match[2].removesuffix(";")
            words = words[1:]
        if words:
            yield words


def shortened(words: list[str]) -> list[str]:
    """Returns the arguments of a command of nodebits, on small data and in little time."""
    found, given = list(words), set(words)
    for at in range(len(found) - 1):
        option, value = found[at], found[at + 1]
        if option in ("--dataset", "--datasets") and value not in _EMBEDDED:
            found[at + 1] = "digits"
        elif option == "--methods" and value == "all":
            found[at + 1] = "uniform,mixq"
        elif option == "--bits" and "," in value:
            found[at + 1] = value.split(",")[0]
        elif option in _SMALL:
            found[at + 1] = "0.1" if (found[0], option) == ("bench", "--budget") else _SMALL[option]
    while "--data-root" in found:  # the embedded set needs none
        at = found.index("--data-root")
        del found[at : at + 2]
    if found[0] == "serve":  # it would answer until it is stopped; tests/serving asks it
        return ["serve", "--help"]
    if "--render-only" in found or "--help" in found:
        return found
    extra = [*_SHORT.get(found[0], []), *_MEASURED.get("".join(found[1:2]), [])]
    if any(":" in word for word in found):  # a model of one's own has arguments of its own
        extra = [word for word in extra if word not in ("--hidden", "8")]
    for at, word in enumerate(extra):
        option = word if word.startswith("--") else extra[at - 1]
        if option not in given:
            found.append(word)
    return found


def look_at(words: list[str], repository: Path) -> str:
    """Returns what is wrong with a command that is not run, an empty text if nothing is."""
    tool = words[0].removeprefix(".venv/bin/")
    looks: dict[str, Callable[[list[str], Path], str]] = {
        "make": _make, "pip": _pip, "python": _python,
    }  # fmt: skip
    if tool in looks:
        return looks[tool](words, repository)
    return "" if words[0] in _ELSEWHERE else f"no way is known to try {words[0]!r}"


def _make(words: list[str], repository: Path) -> str:
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = [word for word in words[1:] if "=" not in word and word != "..."]
    missing = [t for t in targets if not re.search(rf"^{re.escape(t)}:", makefile, re.MULTILINE)]
    return f"make has no target {missing[0]!r}" if missing else ""


def _pip(words: list[str], repository: Path) -> str:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words[2:]:
        match = re.fullmatch(r"(?:nodebits|\.)\[([\w,-]+)\]", word)
        if match is None:
            if "/" in word and not (repository / word.removeprefix("./")).exists():
                return f"{word} is not there"
            continue
        for extra in match[1].split(","):
            if extra not in project["optional-dependencies"]:
                return f"there is no extra {extra!r}"
    return ""


def _python(words: list[str], repository: Path) -> str:
    if len(words) < 2 or words[1].startswith("-"):
        return ""
    script = repository / words[1]
    if not script.is_file():
        return f"{words[1]} is not there"
    text = script.read_text(encoding="utf-8")
    if "argparse" not in text:
        return ""
    own = words[2 : words.index("--")] if "--" in words else words[2:]
    options = [word for word in own if word.startswith("--")]
    if all(option in text for option in options):
        return ""
    shown = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, cwd=repository
    ).stdout
    missing = [option for option in options if option not in text and option not in shown]
    return f"{words[1]} has no option {missing[0]}" if missing else ""
