# Types of the compiled module: outputs are passed in, the last argument is the number of threads.
from torch import Tensor

def isa_levels() -> list[tuple[str, bool, str]]: ...
def isa() -> str: ...
def set_isa(name: str, /) -> bool: ...
def pack(codes: Tensor, bits: int, packed: Tensor, threads: int, /) -> None: ...
def unpack(packed: Tensor, bits: int, codes: Tensor, threads: int, /) -> None: ...
def quantize_pack(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    bits: int,
    row_factor: Tensor | None,
    packed: Tensor,
    threads: int,
    /,
) -> None: ...
def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    bits: int,
    codes: Tensor,
    threads: int,
    /,
) -> None: ...
def fake_quantize_backward(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    bits: int,
    mode: int,
    grad_x: Tensor,
    grad_scale: Tensor,
    grad_zero_point: Tensor,
    threads: int,
    /,
) -> None: ...
def quantize_pack_bucketed(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    order: Tensor,
    counts: list[int],
    row_factor: Tensor | None,
    packed: Tensor,
    threads: int,
    /,
) -> None: ...
def unpack_bucketed(
    packed: Tensor,
    order: Tensor,
    counts: list[int],
    shift: Tensor | None,
    codes: Tensor,
    threads: int,
    /,
) -> None: ...
def gemm_bucketed(
    packed: Tensor,
    order: Tensor,
    counts: list[int],
    num_cols: int,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool,
    out: Tensor,
    threads: int,
    /,
) -> None: ...
def gemm(
    x_packed: Tensor,
    x_bits: int,
    num_cols: int,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool,
    out: Tensor,
    threads: int,
    /,
) -> None: ...
def nearest_group(extent: Tensor, limits: Tensor, group: Tensor, threads: int, /) -> None: ...
def spmm(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    weight: Tensor | None,
    out: Tensor,
    threads: int,
    /,
) -> None: ...
def rescale(
    acc: Tensor,
    col_scale: Tensor,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
    heads: int,
    out: Tensor,
    threads: int,
    /,
) -> None: ...
def propagate(
    indptr: Tensor,
    indices: Tensor,
    x: Tensor,
    factor: Tensor | None,
    scale: Tensor,
    zero_point: Tensor,
    made_with: Tensor,
    bits: list[int],
    coefficients: list[float],
    laplacian: bool,
    teleport: float,
    blocks: Tensor | None,
    out: Tensor,
    threads: int,
    /,
) -> None: ...
def edge_softmax(
    indptr: Tensor,
    indices: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    bits: int,
    codes: Tensor,
    row_sum: Tensor,
    threads: int,
    /,
) -> None: ...
def first_outside(values: Tensor, limit: int, threads: int, /) -> int: ...
def coo_to_csr(
    row: Tensor, col: Tensor, num_rows: int, indptr: Tensor, indices: Tensor, perm: Tensor, /
) -> None: ...
def fused_spmm(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    weight: Tensor | None,
    blocks: Tensor | None,
    acc_scale: Tensor | None,
    acc_offset: Tensor | None,
    col_scale: Tensor,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
    own: Tensor | None,
    own_factor: float,
    heads: int,
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: list[Tensor | None],
    out: list[Tensor],
    threads: int,
    /,
) -> None: ...
def fused_gemm(
    x_packed: list[Tensor],
    x_bits: list[int],
    num_cols: list[int],
    w_packed: list[Tensor],
    w_bits: list[int],
    midrise: list[bool],
    col_scale: list[Tensor],
    col_offset: list[Tensor | None],
    row_scale: list[Tensor | None],
    bias: list[Tensor | None],
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: list[Tensor | None],
    out: list[Tensor],
    threads: int,
    /,
) -> None: ...
def scan(
    x: Tensor,
    bits: int,
    min_scale: float,
    extent: Tensor,
    counts: Tensor,
    first: Tensor,
    sums: Tensor,
    indices: Tensor,
    codes: Tensor,
    packed: Tensor | None,
    scale: Tensor,
    symmetric: bool,
    threads: int,
    /,
) -> tuple[int, bool, bool]: ...
