"""Compiled kernels: the extension module and its levels, and the operators that call it."""

from nodebits.ops.backends.cpu import kernels


def register() -> None:
    """Makes the compiled functions the operators of the CPU."""
    # Imported here: definitions import the levels, and operators their definitions.
    from nodebits.ops.backends.cpu import calls

    calls.register()


def describe() -> dict[str, str]:
    """Which level runs on the CPU."""
    found = kernels.describe()
    if found["isa"] != kernels.REFERENCE:
        return {"cpu": f"compiled kernels, {found['isa']}"}
    reason = found["unavailable"].get("compiled")
    return {"cpu": f"the definitions, in torch{f': {reason}' if reason else ''}"}


def serves() -> dict[str, dict[str, str]]:
    """What serves each operator on the CPU."""
    from nodebits.ops.operator import OPERATORS

    how = "definition" if kernels.compiled() is None else "compiled"
    return {"cpu": dict.fromkeys(OPERATORS, how)}
