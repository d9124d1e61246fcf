"""Parts of the models that the reference numbers do not reach: masks, losses, token layout."""

from __future__ import annotations

import pytest
import torch

from specclip_search.training.networks.losses import clip_loss, error_weights, l1_loss, sigmoid_loss
from specclip_search.training.networks.tokens import (
    chunk_mask,
    lrs_token_count,
    lrs_tokens,
    masked_loss,
    vector_with_statistics,
    xp_tokens,
)
from specclip_search.training.networks.transformer import SelfAttention


def test_masks_hide_one_run_in_each_region() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = chunk_mask(500, 146, 6, 10, generator)
    assert (hidden.sum(1) == 60).all()
    for i in range(6):
        region = hidden[:, i * 146 // 6 : i * 146 // 6 + 146 // 6 - 1]
        assert (region.sum(1) == 10).all()  # the last token of a region is never reached: upper end excluded
    assert hidden[:, 0].any()  # the statistics token can be hidden
    assert not torch.equal(hidden, chunk_mask(500, 146, 6, 10, generator))


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="6 masked runs of 20 need at least 220 tokens; there are 146"):
        chunk_mask(2, 146, 6, 20)


def test_masked_loss_counts_only_changed_entries() -> None:
    tokens = torch.tensor([[[0.0, 2.0], [3.0, 0.0]]])
    hidden = torch.tensor([[True, False]])
    assert masked_loss(tokens + 1.0, tokens, hidden).item() == 1.0
    assert masked_loss(tokens * 2, tokens, hidden).item() == 4.0


def test_tokens() -> None:
    x = torch.arange(30.0).repeat(2, 1) ** 2
    z = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    tokens = lrs_tokens(x, slice_length=8, stride=5)
    assert tokens.shape == (2, lrs_token_count(30, 8, 5), 9) == (2, 6, 9)
    assert torch.equal(tokens[0, 2], torch.cat([torch.zeros(1), z[0, 5:13]]))
    assert torch.allclose(tokens[0, 0, 0], x[0].std().log10())
    xp = xp_tokens(x)
    assert torch.equal(xp[1, 4], torch.stack([torch.tensor(0.0), torch.tensor(0.0), z[1, 3]]))
    assert torch.equal(vector_with_statistics(x)[:, 2:], z)
    assert torch.isfinite(lrs_tokens(torch.ones(1, 30), 8, 5, floor=1e-6)).all()


def test_attention_scale() -> None:
    torch.manual_seed(0)
    double, single = SelfAttention(16, 2), SelfAttention(16, 2, double_scale=False)
    single.load_state_dict(double.state_dict())
    assert (double.scale, single.scale) == (1 / 8, 8**-0.5)
    x = torch.randn(1, 5, 16)
    assert not torch.allclose(double(x), single(x))
    k, v = single.kv_proj(x).chunk(2, -1)
    q, k, v = (t.view(1, 5, 2, 8).transpose(1, 2) for t in (single.q_proj(x), k, v))
    slow = torch.softmax(q @ k.mT / 8**0.5, -1) @ v
    assert torch.allclose(single(x), single.out_proj(slow.transpose(1, 2).reshape(1, 5, 16)), atol=1e-6)


def test_weighted_l1_ignores_pixels_without_information() -> None:
    target = torch.tensor([[1.0, float("nan"), 3.0]])
    weight = error_weights(torch.tensor([[0.001, float("inf"), 0.02]]), floor=0.01)
    assert torch.allclose(weight, torch.tensor([[1.0, 0.0, 0.5]]))
    prediction = torch.tensor([[2.0, 0.0, 0.0]], requires_grad=True)
    loss = l1_loss(prediction, target, weight)
    assert loss.item() == pytest.approx((1 * 1.0 + 3 * 0.5) / 1.5)
    loss.backward()
    assert torch.isfinite(prediction.grad).all()


def test_contrastive_losses_prefer_the_right_pairs() -> None:
    torch.manual_seed(0)
    a = torch.randn(16, 8)
    right, wrong = a + 0.01 * torch.randn(16, 8), a.roll(1, 0)
    assert clip_loss(a, right) < 0.2 * clip_loss(a, wrong)
    assert sigmoid_loss(a, right, 10.0, -10.0) < 0.2 * sigmoid_loss(a, wrong, 10.0, -10.0)
    assert clip_loss(a, right).item() == pytest.approx(clip_loss(right, a).item())
    assert torch.isfinite(clip_loss(torch.zeros(4, 8), torch.zeros(4, 8)))
