import torch

from hf_score.training import samplers
from hf_score.training.samplers import WeightedSampler


def test_more_weights_than_multinomial_takes_are_drawn_by_their_shares(monkeypatch):
    """Beside `torch.multinomial`, where both can draw."""
    weights = torch.tensor([0.0, 3.0, 1.0, 0.0, 4.0, 0.0] * 5000)
    drawn = torch.tensor(list(WeightedSampler(weights, seed=0)))
    assert torch.equal(drawn, torch.multinomial(weights, 30000, True, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(samplers, "_MULTINOMIAL", 100)
    own = torch.tensor(list(WeightedSampler(weights, seed=0)))
    for found in (drawn, own):
        shares = torch.bincount(found % 6, minlength=6) / 30000
        assert shares[[0, 3, 5]].sum() == 0
        torch.testing.assert_close(shares[[1, 2, 4]], torch.tensor([3, 1, 4]) / 8, rtol=0, atol=0.012)  # 4 sigma
    assert own.unique().numel() > 0.6 * 15000 and not torch.equal(drawn, own)


def test_as_many_images_as_multinomial_refuses():
    weights = torch.zeros(2**24 + 1, dtype=torch.float64)
    weights[-3:-1] = 1.0
    drawn = iter(WeightedSampler(weights, seed=0))
    assert {next(drawn) for _ in range(100)} == {2**24 - 2, 2**24 - 1}
