import pytest
import torch

from hf_score.margins import margin_difference
from hf_score.training.neurons import score_penalty, shortcut_relevance


def slow_penalty(activation, relevance, granularity):
    """The definition, written with loops over numbers."""
    out = []
    for a, r in zip(activation.double().tolist(), relevance.double().tolist(), strict=True):
        positions, neurons = len(a), len(a[0])
        positive = [[max(r[p][k], 0.0) for k in range(neurons)] for p in range(positions)]
        total = sum(map(sum, positive))
        if total == 0:
            out.append(0.0)
        elif granularity == "spatial":
            out.append(sum(positive[p][k] / total * abs(a[p][k]) for p in range(positions) for k in range(neurons)))
        else:
            out.append(
                sum(
                    sum(positive[p][k] for p in range(positions))
                    / total
                    * (sum(abs(a[p][k]) for p in range(positions)) / positions)
                    for k in range(neurons)
                )
            )
    return torch.tensor(out)


@pytest.mark.parametrize("granularity", ["channel", "spatial"])
def test_penalty_equals_its_definition(granularity):
    torch.manual_seed(0)
    activation, relevance = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    relevance[2] = -1.0  # a sample without positive relevance pays nothing
    weights = shortcut_relevance(relevance, granularity=granularity)
    torch.testing.assert_close(
        score_penalty(activation, weights, granularity=granularity), slow_penalty(activation, relevance, granularity)
    )
    assert torch.allclose(weights.sum(dim=(1, 2)), torch.tensor([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("granularity", ["channel", "spatial"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_penalty_is_never_negative(granularity, dtype):
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-20, 1.0, 1e6):
        activation = (torch.randn(16, 9, 4, generator=generator) * scale - scale).to(dtype)
        relevance = torch.randn(16, 9, 4, generator=generator) * scale
        weights = shortcut_relevance(relevance, granularity=granularity)
        penalty = score_penalty(activation, weights, granularity=granularity)
        assert torch.isfinite(penalty).all() and (penalty >= 0).all()


@pytest.mark.parametrize("granularity", ["channel", "spatial"])
def test_descent_on_the_penalty_ends_at_zero_activation_not_at_minus_infinity(granularity):
    """The literal product r·a falls without bound on signed activations; |a| stops where nothing is contributed."""
    torch.manual_seed(0)
    activation = torch.randn(2, 3, 4, requires_grad=True)
    weights = shortcut_relevance(torch.ones(2, 3, 4), granularity=granularity)
    optimizer = torch.optim.SGD([activation], lr=0.5)
    for step in range(2000):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 / (1 + step) ** 0.5
        optimizer.zero_grad()
        score_penalty(activation, weights, granularity=granularity).sum().backward()
        optimizer.step()
    assert activation.abs().max() < 0.02


def test_no_gradient_reaches_the_relevance():
    relevance = torch.rand(1, 2, 3, requires_grad=True)
    assert not shortcut_relevance(relevance, granularity="spatial").requires_grad


def test_margin_difference_equals_its_definition_and_is_blind_to_what_shifts_all_logits():
    torch.manual_seed(0)
    a, b, labels = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])

    def slow(logits, label):
        return logits[label] - max(value for k, value in enumerate(logits) if k != label)

    expected = [abs(slow(p, c) - slow(q, c)) for p, q, c in zip(a.tolist(), b.tolist(), labels.tolist(), strict=True)]
    torch.testing.assert_close(margin_difference(a, b, labels), torch.tensor(expected))
    torch.testing.assert_close(margin_difference(a + 7, b - 3, labels), torch.tensor(expected))
    assert margin_difference(a, a, labels).abs().max() == 0
