"""Gates on the weights of a network, which a method learns to open and close: what PruSC and DCWP share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..models import classifier_head

__all__ = ["Gate", "GatedModel"]

#: Logit at which every gate begins: open with probability 0.82 (Park et al., 2023, arXiv 2210.05247).
START = 1.5
#: Learning rate of the gates, summed over the steps of a run: theirs is 0.01 in each of some 1,500 to 2,000 steps.
TOTAL_STEP = 15.0


class Gate(nn.Module):
    """A weight times a gate of 0 or 1 for each of its numbers; the gradient passes to the gate's probability.

    In train mode a gate is drawn: 1 where sigmoid(logit + logistic noise) is above ½, the Gumbel-sigmoid with a
    straight-through gradient. In eval mode, and once `noisy` is off, it is 1 where the logit is at least 0.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.full_like(weight, START))
        self.noisy = True

    def forward(self, weight: Tensor) -> Tensor:
        logits: Tensor = self.logits
        if self.training and self.noisy:
            uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            logits = logits + uniform.log() - (-uniform).log1p()
        probability = logits.sigmoid()
        # The bracket is exactly 0.
        return weight * ((logits >= 0).to(weight) + (probability - probability.detach()))


class GatedModel:
    """A model with a gate on every linear layer and convolution but its head, until `cut`."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        head = classifier_head(model)  # type: ignore[arg-type]
        self._modules = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) and m is not head]
        self.gates: list[Gate] = []
        for module in self._modules:
            gate = Gate(module.weight)
            parametrize.register_parametrization(module, "weight", gate)
            self.gates.append(gate)

    @property
    def kept(self) -> float:
        """Share of the gated weights that are kept."""
        return sum(int((g.logits >= 0).sum()) for g in self.gates) / sum(g.logits.numel() for g in self.gates)

    def logits(self) -> list[nn.Parameter]:
        """Those of all gates."""
        return [gate.logits for gate in self.gates]

    def mean_logit(self) -> Tensor:
        """Over all gated weights, with a graph: what sparsity is measured by."""
        count = sum(gate.logits.numel() for gate in self.gates)
        return torch.stack([gate.logits.sum() for gate in self.gates]).sum() / count

    def settle(self) -> None:
        """From here on gates are what they have become: no noise, no gradient."""
        for gate in self.gates:
            gate.noisy = False
            gate.logits.requires_grad_(False)

    def cut(self) -> None:
        """Write zeros where a gate is closed, and take the gates away. Leaves the model in eval mode."""
        self.model.eval()
        for module in self._modules:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
