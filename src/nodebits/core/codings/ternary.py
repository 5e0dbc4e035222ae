"""Three levels around zero, as ternary networks have them."""

from __future__ import annotations

from nodebits.core.codings.base import Coding, register_coding


@register_coding("ternary")
class Ternary(Coding):
    """The numbers -1, 0 and 1 in two's complement: codes 0, 1 and 2, with zero point 1."""

    number = 1
    widths = (2,)

    def top(self, bits: int) -> int:
        """Code 2, the number 1."""
        return 2

    def field(self, code: int, bits: int) -> int:
        """The number in two bits; -2, which they could hold as well, stands for no code."""
        return (code - 1) & 0b11
