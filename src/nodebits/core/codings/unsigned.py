"""Fields that are their codes: the rule, and what every operator understands."""

from __future__ import annotations

from torch import Tensor

from nodebits.core.affine import max_code
from nodebits.core.codings.base import Coding, register_coding


@register_coding("unsigned")
class Unsigned(Coding):
    """Every field is its code."""

    number = 0
    widths = tuple(range(1, 9))

    def top(self, bits: int) -> int:
        """All bits set."""
        return max_code(bits)

    def field(self, code: int, bits: int) -> int:
        """The code."""
        return code

    def encode(self, packed: Tensor, bits: int, num_cols: int) -> Tensor:
        """The same rows, of any width: no field is looked at."""
        return packed

    def decode(self, packed: Tensor, bits: int, num_cols: int) -> Tensor:
        """The same rows."""
        return packed

    def check_fields(self, packed: Tensor, bits: int, num_cols: int, name: str = "packed") -> None:
        """All fields are codes."""
