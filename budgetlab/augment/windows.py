"""Cut a window out of every image of a batch, each at its own place, in one gather.

A row of a window is a run of neighbouring values in memory, so a batch of windows
is one ``index_select`` of runs. On a CPU that copies whole rows, several times
faster than gathering pixel by pixel; on a GPU it is one kernel.
"""

import torch
from torch import Tensor

__all__ = ["cut_windows"]


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
        int64 ``[B, rows]`` (or broadcast): the first column of each window row. What
        lies beyond the left or right edge comes out unspecified: the caller masks it.
    width
        Columns of a window, at least 1 and at most W.

    Returns
    -------
    Tensor
        ``[B, C, rows, width]``, channels_last if ``images`` is, else contiguous.
    """
    count, channels, height, image_width = images.shape
    interleaved = not images.is_contiguous() and images.is_contiguous(
        memory_format=torch.channels_last
    )
    # Memory holds planes of rows: C planes an image, or one whose pixels are C values.
    if interleaved:
        planes, step, values = 1, channels, images.permute(0, 2, 3, 1).reshape(-1)
    else:
        planes, step, values = channels, 1, images.reshape(-1)
    plane = torch.arange(planes, device=images.device).unsqueeze(1)
    row = (sources.unsqueeze(-2) * planes + plane) * height + top.unsqueeze(-2)
    first = row * (image_width * step) + left.unsqueeze(-2) * step
    runs = values.unfold(0, width * step, 1)
    cut = runs.index_select(0, first.clamp(0, len(runs) - 1).flatten())
    count, rows = top.shape
    if interleaved:
        return cut.view(count, rows, width, channels).permute(0, 3, 1, 2)
    return cut.view(count, channels, rows, width)
