"""Take images, cut a window out of every image, mark a box in every image.

A row of a window is a run of neighbouring values in memory, so a batch of windows
is one ``index_select`` of runs. On a CPU that copies whole rows, several times
faster than gathering pixel by pixel; on a GPU it is one kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["box_mask", "cut_windows", "take"]


def is_interleaved(images: Tensor) -> bool:
    """Whether memory holds pixel after pixel (channels_last), not channel after channel."""
    return not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)


def take(images: Tensor, rows: Tensor) -> Tensor:
    """Return ``images[rows]`` in the memory format of ``images``, whole images at a time."""
    if is_interleaved(images):
        return images.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return images.index_select(0, rows)


def cut_windows(images: Tensor, sources: Tensor, top: Tensor, left: Tensor, width: int) -> Tensor:
    """Cut ``out[b, :, h, w] = images[sources[b, h], :, top[b, h], left[b, h] + w]``.

    Parameters
    ----------
    images
        ``[N, C, H, W]``, any dtype, contiguous or channels_last.
    sources
        int64 ``[B, rows]`` (or a shape that broadcasts to it), in [0, N).
    top
        int64 ``[B, rows]``, in [0, H): the image row that each window row shows.
    left
        int64 ``[B, rows]`` (or broadcast), in [-W, W]: the first column of each window
        row. What lies beyond the left or right edge comes out unspecified: mask it.
    width
        Columns of a window, at least 1 and at most W.

    Returns
    -------
    Tensor
        ``[B, C, rows, width]``, channels_last if ``images`` is, else contiguous.
    """
    _, channels, height, image_width = images.shape
    interleaved = is_interleaved(images)
    # Memory holds planes of rows: C planes an image, or one whose pixels are C values.
    if interleaved:
        planes, step, values = 1, channels, images.permute(0, 2, 3, 1).reshape(-1)
    else:
        planes, step, values = channels, 1, images.reshape(-1)
    margin = image_width * step
    plane = torch.arange(planes, device=images.device).unsqueeze(1)
    row = (sources.unsqueeze(-2) * planes + plane) * height + top.unsqueeze(-2)
    first = row * margin + left.unsqueeze(-2) * step + margin
    # The margin lets a run start before the first image or end after the last one.
    runs = F.pad(values, (margin, margin)).unfold(0, width * step, 1)
    cut = runs.index_select(0, first.flatten())
    count, rows = top.shape
    if interleaved:
        return cut.view(count, rows, width, channels).permute(0, 3, 1, 2)
    return cut.view(count, channels, rows, width)


def box_mask(
    top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, height: int, width: int
) -> Tensor:
    """Mark the pixels with ``top <= row < bottom`` and ``left <= column < right``.

    Parameters
    ----------
    top, bottom, left, right
        Integers ``[B]``, or ``[]`` for one box; they may lie outside of the image.
    height, width
        Size of the image in pixels.

    Returns
    -------
    Tensor
        bool ``[B, 1, height, width]`` (B = 1 for one box).
    """
    rows = torch.arange(height, device=top.device)
    columns = torch.arange(width, device=top.device)
    in_rows = (rows >= top.reshape(-1, 1)) & (rows < bottom.reshape(-1, 1))
    in_columns = (columns >= left.reshape(-1, 1)) & (columns < right.reshape(-1, 1))
    return (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1)
