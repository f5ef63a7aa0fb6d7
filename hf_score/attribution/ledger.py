"""The accounts of one explanation: what takes relevance on the way from the output down to the pixels."""

from __future__ import annotations

from torch import Tensor

__all__ = ["Ledger"]


class Ledger:
    """Where the relevance of one batch goes that does not arrive at the pixels or the layer.

    Attributes:
        batch_size: number of images that are explained; 0 before the first.
        absorbed_by_biases: (B,), once the backward pass has run; None where no bias took any.
        embeddings: kind and leaf (B, …) of each constant, such as a class token, that was added to activations.
        pixels_hold_relevance: a rule of the first layer, such as flat, gives R at the pixels and not the derivative g.
    """

    def __init__(self, batch_size: int = 0) -> None:
        self.batch_size = batch_size
        self.absorbed_by_biases: Tensor | None = None
        self.embeddings: list[tuple[str, Tensor]] = []
        self.pixels_hold_relevance = False

    def absorb(self, gradient: Tensor, bias: Tensor, *, channels_last: bool) -> None:
        """Account for a bias's relevance, bias · gradient, summed for each image or for each of an image's windows."""
        if gradient.ndim > 2:
            gradient = gradient.flatten(1, -2).sum(1) if channels_last else gradient.flatten(2).sum(2)
        self.absorb_relevance(gradient @ bias.flatten())

    def absorb_relevance(self, relevance: Tensor) -> None:
        """Account for relevance that a bias took, one value for each image or for each of an image's windows."""
        if self.batch_size and relevance.numel() % self.batch_size == 0:
            relevance = relevance.reshape(self.batch_size, -1).sum(1)
            before = self.absorbed_by_biases
            self.absorbed_by_biases = relevance if before is None else before + relevance

    def tap(self, output: Tensor, bias: Tensor | None, *, channels_last: bool) -> Tensor:
        """See, when the backward pass comes by, what the bias in `output` takes."""
        if bias is not None and output.requires_grad:
            output.register_hook(lambda gradient: self.absorb(gradient, bias, channels_last=channels_last))
        return output
