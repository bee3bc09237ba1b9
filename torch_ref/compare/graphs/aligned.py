"""Connectionist temporal classification (ctc_loss), written out in other operations.

A target's labels, with blanks between and around them, are aligned with the time steps: at each
step the place among them stays, or goes on by one, or by two where that skips a blank between
different labels. alpha and beta are the logarithms of the probabilities of all ways up to, and
from, a step's place on, that step included in both (Graves et al. 2006, section 4.1).
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

NEVER = -math.inf


class _Target(NamedTuple):
    """Of one sample: at each place its label and whether it may be reached by skipping a blank,
    and the labels' logarithms of probabilities, shape (steps, places)."""

    labels: Tensor
    skipped_to: Tensor
    steps: Tensor


def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: list[int], target_lengths: list[int],
    blank: int = 0, zero_infinity: bool = False,
) -> Any:  # fmt: skip
    """Each sample's loss, infinite where nothing fits, and alpha, shape (samples, steps, places).

    log_probs: shape (steps, samples, classes). targets: shape (samples, labels), or of all samples
        one behind the other.
    """
    if not min(input_lengths):
        return NotImplemented
    losses, alphas = [], []
    places = 2 * max(target_lengths) + 1
    for target in _targets(log_probs, targets, input_lengths, target_lengths, blank):
        alpha = _forwards(target)
        losses.append(-alpha[-1, -2:].logsumexp(0))
        alphas.append(_padded(alpha, len(log_probs), places, NEVER))
    return torch.stack(losses), torch.stack(alphas)


def ctc_loss_backward(
    upstream: Tensor, log_probs: Tensor, targets: Tensor, input_lengths: list[int],
    target_lengths: list[int], loss: Tensor, alphas: Tensor, blank: int,
    zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """Of the logarithms of probabilities, as of a log-softmax's outcome: torch's kernels add their
    exp, which the log-softmax's own backward pass takes away again (equation 16)."""
    gradients = []
    classes = torch.arange(log_probs.shape[-1], device=log_probs.device)
    samples = _targets(log_probs, targets, input_lengths, target_lengths, blank)
    for sample, target in enumerate(samples):
        steps, places = target.steps.shape
        both = alphas[sample, :steps, :places] + _backwards(target)
        of_class = (target.labels.unsqueeze(-1) == classes).unsqueeze(0)
        by_class = torch.where(of_class, both.unsqueeze(-1), NEVER).logsumexp(1)
        known = log_probs[:steps, sample]
        gradient = known.exp() - (by_class + loss[sample] - known).exp()
        gradient = gradient * upstream[sample]
        if zero_infinity:
            gradient = torch.where(loss[sample] == math.inf, 0.0, gradient)
        gradients.append(_padded(gradient, len(log_probs), len(classes), 0.0))
    return torch.stack(gradients, 1)


def _targets(
    log_probs: Tensor, targets: Tensor, input_lengths: list[int], target_lengths: list[int],
    blank: int,
) -> list[_Target]:  # fmt: skip
    found, start = [], 0
    for sample, (steps, length) in enumerate(zip(input_lengths, target_lengths, strict=True)):
        own = targets[sample, :length] if targets.ndim > 1 else targets[start : start + length]
        start += length
        between = torch.full_like(own, blank)
        labels = torch.stack((between, own), 1).flatten()
        labels = torch.cat((labels, labels.new_full((1,), blank)))
        skipped_to = torch.zeros_like(labels, dtype=torch.bool)
        if length > 1:
            differ = (labels[2:] != labels[:-2]) & (labels[2:] != blank)
            skipped_to = torch.cat((skipped_to[:2], differ))
        found.append(_Target(labels, skipped_to, log_probs[:steps, sample].index_select(1, labels)))
    return found


def _forwards(target: _Target) -> Tensor:
    """alpha, shape (steps, places)."""
    first = torch.arange(len(target.labels), device=target.labels.device) < 2
    alphas = [torch.where(first, target.steps[0], NEVER)]
    for step in target.steps[1:]:
        alphas.append(step + _reached(alphas[-1], target.skipped_to))
    return torch.stack(alphas)


def _backwards(target: _Target) -> Tensor:
    """beta, shape (steps, places): alpha of all things in reverse."""
    skipped_to = target.skipped_to.roll(-2).flip(0)  # by a skip from here, which begins at the end
    reverse = _Target(target.labels.flip(0), skipped_to, target.steps.flip(0, 1))
    return _forwards(reverse).flip(0, 1)


def _reached(before: Tensor, skipped_to: Tensor) -> Tensor:
    """All ways to each place from where they were one step before."""
    ways = [before, _moved(before, 1)]
    if len(before) > 2:
        ways.append(torch.where(skipped_to, _moved(before, 2), NEVER))
    return torch.stack(ways).logsumexp(0)


def _moved(before: Tensor, by: int) -> Tensor:
    return torch.cat((before.new_full((min(by, len(before)),), NEVER), before[:-by]))


def _padded(values: Tensor, rows: int, columns: int, fill: float) -> Tensor:
    found: Tensor = torch.nn.functional.pad(
        values, (0, columns - values.shape[1], 0, rows - values.shape[0]), value=fill
    )
    return found
