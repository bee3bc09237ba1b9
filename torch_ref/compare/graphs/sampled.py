"""Images sampled at the points of a grid (grid_sample, two axes), written out in other operations.

A point's numbers in [-1, 1] become a place between pixels, whose four neighbours are weighted
bilinearly (Jaderberg et al. 2015, equation 5), or the nearest of which is taken.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

BILINEAR, NEAREST = 0, 1
ZEROS, BORDER = 0, 1


class _Axis(NamedTuple):
    """Places along one axis, shape (batch, height, width) of the grid: the pixels before and after,
    how near each is, and how fast the place moves with the grid's number."""

    before: Tensor
    after: Tensor
    to_before: Tensor
    to_after: Tensor
    speed: Tensor


def grid_sampler(value: Tensor, grid: Tensor, mode: int, padding: int, aligned: bool) -> Any:
    """Sampled values, shape (batch, channels, height, width) of the grid."""
    if mode not in (BILINEAR, NEAREST) or padding not in (ZEROS, BORDER):
        return NotImplemented
    if mode == NEAREST:
        down, across = (_nearest(value, grid, axis, padding, aligned) for axis in (0, 1))
        return _pixels(value, down, across)
    y, x = (_axis(value, grid, axis, padding, aligned) for axis in (0, 1))
    upper = _pixels(value, y.before, x.before) * (y.to_after * x.to_after).unsqueeze(1)
    upper = upper + _pixels(value, y.before, x.after) * (y.to_after * x.to_before).unsqueeze(1)
    lower = _pixels(value, y.after, x.before) * (y.to_before * x.to_after).unsqueeze(1)
    lower = lower + _pixels(value, y.after, x.after) * (y.to_before * x.to_before).unsqueeze(1)
    return upper + lower


def grid_sampler_backward(
    upstream: Tensor, value: Tensor, grid: Tensor, mode: int, padding: int, aligned: bool,
    mask: list[bool],
) -> Any:  # fmt: skip
    """Of the image, where `mask` asks for it, and of the grid."""
    if mode not in (BILINEAR, NEAREST) or padding not in (ZEROS, BORDER):
        return NotImplemented
    if mode == NEAREST:
        down, across = (_nearest(value, grid, axis, padding, aligned) for axis in (0, 1))
        image = _spread(value, upstream, down, across) if mask[0] else None
        return image, torch.zeros_like(grid)
    y, x = (_axis(value, grid, axis, padding, aligned) for axis in (0, 1))
    corners = [
        (down, across, along_y, along_x, sign_y, sign_x)
        for down, along_y, sign_y in ((y.before, y.to_after, -1), (y.after, y.to_before, 1))
        for across, along_x, sign_x in ((x.before, x.to_after, -1), (x.after, x.to_before, 1))
    ]
    image = None
    if mask[0]:
        image = torch.zeros_like(value)
        for down, across, along_y, along_x, _, _ in corners:
            image = image + _spread(
                value, upstream * (along_y * along_x).unsqueeze(1), down, across
            )
    by_y = by_x = torch.zeros_like(y.to_after)
    for down, across, along_y, along_x, sign_y, sign_x in corners:
        pulled = (_pixels(value, down, across) * upstream).sum(1)
        by_y = by_y + sign_y * pulled * along_x
        by_x = by_x + sign_x * pulled * along_y
    return image, torch.stack((by_x * x.speed, by_y * y.speed), -1)


def _place(
    value: Tensor, grid: Tensor, axis: int, padding: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Where points lie, in pixels, and how fast that moves with the grid's number."""
    size, number = value.shape[2 + axis], grid[..., 1 - axis]
    if aligned:
        place, speed = (number + 1) / 2 * (size - 1), (size - 1) / 2
    else:
        place, speed = ((number + 1) * size - 1) / 2, size / 2
    speeds = torch.full_like(place, speed)
    if padding == BORDER:
        inside = (place > 0) & (place < size - 1)
        speeds = torch.where(inside, speeds, 0.0)
        place = place.clamp(0, size - 1)
    return place, speeds


def _axis(value: Tensor, grid: Tensor, axis: int, padding: int, aligned: bool) -> _Axis:
    place, speed = _place(value, grid, axis, padding, aligned)
    before = place.floor()
    return _Axis(before.long(), before.long() + 1, place - before, before + 1 - place, speed)


def _nearest(value: Tensor, grid: Tensor, axis: int, padding: int, aligned: bool) -> Tensor:
    return _place(value, grid, axis, padding, aligned)[0].round().long()


def _flat(value: Tensor, down: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
    """Places in the flat image, shape (batch, 1, points), and which of them are in the image."""
    height, width = value.shape[2:]
    there = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    place = down.clamp(0, height - 1) * width + across.clamp(0, width - 1)
    return place.flatten(1).unsqueeze(1), there.flatten(1).unsqueeze(1)


def _pixels(value: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """The pixels there, 0 outside."""
    place, there = _flat(value, down, across)
    taken = value.flatten(2).gather(2, place.expand(-1, value.shape[1], -1))
    return torch.where(there, taken, 0.0).reshape(*value.shape[:2], *down.shape[1:])


def _spread(value: Tensor, numbers: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Numbers added to the pixels there, of an image that is 0."""
    place, there = _flat(value, down, across)
    added = torch.where(there, numbers.flatten(2), 0.0)
    empty = torch.zeros_like(value).flatten(2)
    return empty.scatter_add(2, place.expand_as(added), added).reshape(value.shape)
