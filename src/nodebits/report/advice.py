"""What to do next after a quantize job: sentences and commands that follow from its figures."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from nodebits.report.words import busy_words, count_of, figure

# A loss of quality that is worth more bits, as a share of the float figure.
_LOSS = 0.01


@dataclass(frozen=True)
class Advice:
    """A sentence, and the command that does what it says, if there is one."""

    text: str
    command: str = ""


def next_steps(report: dict[str, Any]) -> list[Advice]:
    """Returns what the figures of a report suggest, the most important first."""
    quality, speed, use = _quality(report), _speed(report), _use(report)
    return [advice for advice in (*quality, *speed, *use) if advice is not None]


def _quality(report: dict[str, Any]) -> list[Advice | None]:
    metric, bits = report["metric"], report["method"]["bits"]
    figures = report[metric["name"]]
    packed, floats = figures["packed"]["mean"], figures["float"]["mean"]
    sign = 1 if metric["higher_is_better"] else -1
    loss = sign * (floats - packed) / max(abs(floats), 1e-12)
    spread = max(figures["packed"]["std"], figures["float"]["std"])
    found: list[Advice | None] = []
    if report["interrupted"]:
        found.append(Advice("Training was interrupted; the same command goes on.", _again(report)))
    if loss > _LOSS and abs(floats - packed) > spread:
        gap = figure(abs(floats - packed), metric, 1)
        found.append(
            Advice(
                f"The packed model is {gap} behind float. More bits are the surest cure.",
                _again(report, bits=min(8, 2 * bits)) if bits < 8 else "",
            )
        )
        found.append(
            Advice("Bits where they matter: a search finds a width per site.", _search(report))
        )
    elif bits > 2:
        found.append(
            Advice(
                "The packed model keeps the quality of float. Fewer bits may do as well.",
                _again(report, bits=bits // 2),
            )
        )
    if len(report["runs"]) == 1:
        found.append(
            Advice("One run says nothing of the spread. Repeat it.", _again(report, seeds=3))
        )
    return found


def _speed(report: dict[str, Any]) -> list[Advice | None]:
    plan, floats = report["plan"], report["float_layers"]
    busy = busy_words(report.get("other_load"))  # which older reports do not say
    found: list[Advice | None] = []
    if busy:
        found.append(Advice(f"Its latencies say little: {busy}.", _again(report)))
    if plan["reason"]:
        found.append(Advice(f"There is no plan, so every call runs Python: {plan['reason']}"))
    elif plan["python"]:
        steps = ", ".join(sorted(set(plan["python"])))
        found.append(
            Advice(f"Python runs {count_of(len(plan['python']), 'step')} of the plan: {steps}.")
        )
    if floats:
        layers = ", ".join(f"{path or 'model'} ({name})" for path, name in floats.items())
        found.append(Advice(f"These layers stayed in float: {layers}. nodebits.check says why."))
    packed_ahead = report.get("packed_ahead", True)  # which older reports do not say
    if not packed_ahead:
        found.append(
            Advice(
                "Its first layers read floats too, so no features were packed ahead: what is "
                "prepared is the graph alone, packed.prepare_graph(edge_index, num_nodes)."
            )
        )
    if packed_ahead and report["speedup"] < 1 < report["speedup_prepared"]:
        found.append(
            Advice(
                "It is faster than float once the input is prepared: pack features ahead.",
                _pack(report),
            )
        )
    elif report["speedup_prepared"] < 1:
        found.append(
            Advice(
                "It is smaller but not faster here; nodebits.check says which layers take the time."
            )
        )
    return found


def _use(report: dict[str, Any]) -> list[Advice | None]:
    file = _file(report)
    predict = shlex.join(["nodebits", "predict", file, "--out", "predictions.csv"])
    portable = not report["plan"]["reason"] and not report["plan"]["python"]
    without_torch = f"The file runs without torch: nodebits.lite.load({file!r}).predict(...)"
    return [Advice("Predict with the file.", predict), Advice(without_torch) if portable else None]


def _again(report: dict[str, Any], **changed: int) -> str:
    """The report's command with some options changed, and another folder where they are."""
    words = shlex.split(report["command"]) if report["command"] else []
    if not words:
        return ""
    for name, value in changed.items():
        words = [*_without(words, f"--{name}"), f"--{name}", str(value)]
    if changed:
        folder = _value(words, "--out")
        suffix = "-".join(f"{value}{name}" for name, value in changed.items())
        words = [*_without(words, "--out"), "--out", f"{folder}-{suffix}"]
    return shlex.join(words)


def _search(report: dict[str, Any]) -> str:
    data = _data(report)
    return shlex.join(["nodebits", "search", *data, "--max-drop", "0.5", "--out", "runs/search"])


def _pack(report: dict[str, Any]) -> str:
    return shlex.join(["nodebits", "pack", _file(report), "--out", "features.safetensors"])


def _file(report: dict[str, Any]) -> str:
    """The model's file, as the command names its folder."""
    folder = _value(shlex.split(report["command"]), "--out") if report["command"] else ""
    return f"{folder}/model.safetensors" if folder else "model.safetensors"


def _data(report: dict[str, Any]) -> list[str]:
    """The options of the command that say which data and model."""
    words = shlex.split(report["command"]) if report["command"] else []
    found = []
    for option in ("--data", "--target", "--dataset", "--data-root", "--model"):
        value = _value(words, option)
        found += [option, value] if value else []
    return found


def _value(words: list[str], option: str) -> str:
    for at, word in enumerate(words):
        if word == option and at + 1 < len(words):
            return words[at + 1]
        if word.startswith(option + "="):
            return word.partition("=")[2]
    return ""


def _without(words: list[str], option: str) -> list[str]:
    found, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word == option:
            skip = True
        elif not word.startswith(option + "="):
            found.append(word)
    return found
