"""From one image to a graph: SLIC superpixels, joined to those that a kernel says are near.

The definition is that of Dwivedi et al., Benchmarking Graph Neural Networks (JMLR 24, 2023), with
the superpixels of Knyazev et al., Understanding Attention and Generalization in Graph Neural
Networks (NeurIPS 2019). Three things are as in their release, where it and the text differ: the
kernel reads positions alone, an edge goes from a superpixel to one that is near to it, and features
are rounded to half precision.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from nodebits.data.extras import require

NEIGHBOURS = 8
# In place of a neighbour, where a graph has too few.
NO_NEIGHBOUR = 255
_LEAST_WIDTH = 1e-8


def superpixels(
    image: NDArray[np.uint8], most: int, more: int, compactness: float
) -> NDArray[np.float16]:
    """Cuts an image into superpixels: their mean intensities and centres.

    SLIC finds fewer segments than it is asked for, so ``more`` are asked for at first, and one less
    until there are no more than ``most``.

    Args:
        image: uint8 ``[H, W]`` or ``[H, W, 3]``.
        most: Superpixels at most.
        more: How many more are asked for at first.
        compactness: As in ``skimage.segmentation.slic``.

    Returns:
        float16 ``[N, C + 2]``: mean of every channel, row and column of the centre over the number
        of rows and columns, all in [0, 1].

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    slic = require("skimage.segmentation", "images", "superpixels need").slic
    pixels = image.astype(np.float32) / 255
    height, width = image.shape[:2]
    colours = -1 if image.ndim == 3 else None
    for asked in _numbers(height, width, most + more):
        cut = slic(pixels, asked, compactness, channel_axis=colours, start_label=0)
        found, segment = np.unique(cut, return_inverse=True)
        if len(found) <= most:
            break
    segment = segment.reshape(-1)
    row, column = np.indices((height, width)).reshape(2, -1)
    columns = [*pixels.reshape(height * width, -1).T, row / height, column / width]
    size = np.bincount(segment)
    means = [np.bincount(segment, weights=values) / size for values in columns]
    return np.stack(means, axis=1).astype(np.float16)


@cache
def _numbers(height: int, width: int, largest: int) -> tuple[int, ...]:
    """Numbers of segments to ask for, largest first: one of all that begin with the same centres.

    SLIC begins with centres on a grid of whole steps, and everything follows from them: 200, 199
    and so on to 164 segments of an image of 32 times 32 are the same ones.
    """
    grid = require("skimage.util", "images", "superpixels need").regular_grid
    by_grid: dict[str, int] = {}
    for asked in range(largest, 0, -1):
        by_grid.setdefault(str(grid((1, height, width), asked)), asked)
    return tuple(by_grid.values())


def nearest(centres: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The superpixels that are nearest to each by the kernel, itself left out.

    The kernel is ``exp(-(d_ij / s_i)^2)``, made symmetric by its mean with ``j`` in place of ``i``;
    ``d`` are distances of centres and ``s_i`` is the mean distance of ``i`` to its 8 nearest. Ties
    go to the lower number. (The release keeps 8 of the 9 nearest; which one it leaves out follows
    from the order that numpy's partition happens to have.)

    Args:
        centres: ``[N, 2]``, N at most 255.

    Returns:
        uint8 ``[N, 8]``, the nearest first; of fewer than 9 superpixels all others, then
        ``NO_NEIGHBOUR``.
    """
    count = len(centres)
    step = centres[:, None].astype(np.float64) - centres[None].astype(np.float64)
    distance = np.sqrt((step * step).sum(axis=2))
    if count > NEIGHBOURS:
        closest = np.partition(distance, NEIGHBOURS, axis=1)[:, : NEIGHBOURS + 1]
        width = closest.sum(axis=1, keepdims=True) / NEIGHBOURS + _LEAST_WIDTH
    else:
        width = np.ones((count, 1))
    kernel = np.exp(-((distance / width) ** 2))
    kernel = (kernel + kernel.T) / 2
    np.fill_diagonal(kernel, -1.0)
    order = np.argsort(-kernel, axis=1, kind="stable")[:, : min(NEIGHBOURS, count - 1)]
    result = np.full((count, NEIGHBOURS), NO_NEIGHBOUR, np.uint8)
    result[:, : order.shape[1]] = order
    return result
