"""Files of SMP without a constraint, whose layer became APPNP's.

Its coefficients were all zero: steps, sites and bits are those of APPNP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from nodebits.core.errors import FileFormatError


def without_constraint(
    header: dict[str, Any], tensors: dict[str, Tensor], path: str | Path
) -> None:
    """Gives the layers of SMP in ``header`` and ``tensors`` the form of APPNP, in place.

    Raises:
        FileFormatError: If a step has a coefficient, which a model without a constraint has not.
    """
    for name, entry in header["layers"].items():
        if entry["class"] != "QuantSMPConv":
            continue
        coefficients = tensors.pop(f"{name}.coefficients", None)
        if coefficients is not None and bool(coefficients.count_nonzero()):
            raise FileFormatError(
                f"{path}: {name}.coefficients are not zero, but the model has no constraint"
            )
        entry["class"] = "QuantAPPNP"
        options = {
            key: entry["config"][key] for key in ("steps", "alpha") if key in entry["config"]
        }
        entry["config"] = {**options, "add_self_loops": True, "normalize": True}
