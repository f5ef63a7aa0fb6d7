import torch

from hf_score.detection import relevance_mask


def test_mask_is_the_smallest_region_that_holds_the_share():
    heatmap = torch.zeros(1, 10, 10)
    heatmap[0, 0, 0], heatmap[0, 5, 5], heatmap[0, 9, 9] = 5.0, 3.0, 2.0
    mask = relevance_mask(heatmap, share=0.8, max_area=1.0, blur=0.0)[0]
    assert mask.nonzero().tolist() == [[0, 0], [5, 5]]


def test_mask_is_bounded_by_area_and_ignores_negative_relevance():
    torch.manual_seed(0)
    heatmaps = torch.rand(4, 20, 20)
    heatmaps[3] = -heatmaps[3]
    masks = relevance_mask(heatmaps, share=1.0, max_area=0.2, blur=0.02)
    assert masks.flatten(1).sum(1).tolist() == [80, 80, 80, 0]


def test_blur_joins_what_lies_together():
    heatmap = torch.zeros(1, 40, 40)
    heatmap[0, 10:20:2, 10:20:2] = 1.0  # a checkerboard region
    heatmap[0, 35, 35] = 1.0  # and one stray pixel
    mask = relevance_mask(heatmap, share=0.5, max_area=0.2, blur=0.05)[0]
    assert not mask[35, 35] and mask[12:17, 12:17].all()


def test_mask_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    heatmaps = torch.randn(5, 16, 16)
    together = relevance_mask(heatmaps)
    assert all(torch.equal(together[i], relevance_mask(heatmaps[i : i + 1])[0]) for i in range(5))
