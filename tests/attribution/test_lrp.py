"""The AttnLRP rules derived a second time: slowly, index by index, from relevance to relevance as the paper states."""

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import nn

from hf_score.attribution.lrp import LRP
from hf_score.errors import UnsupportedArchitectureError

TOKENS, WIDTH, HEADS = 5, 6, 2


def linear_rule(x, weight, bias, relevance):
    """LRP-0 for y_j = Σ_i w_ji x_i + b_j: R_i = Σ_j x_i w_ji R_j / y_j, one token after the other."""
    below = torch.zeros_like(x)
    for token in range(len(x)):
        for j in range(len(weight)):
            y = (weight[j] * x[token]).sum() + (0 if bias is None else bias[j])
            below[token] += x[token] * weight[j] * relevance[token, j] / y
    return below


def layer_norm_rule(x, norm, relevance):
    """Proposition 3.4: the standard deviation is a constant, which leaves a linear map of the centred input."""
    std = ((x - x.mean(1, keepdim=True)).pow(2).mean(1, keepdim=True) + norm.eps).sqrt()
    below = torch.zeros_like(x)
    for token in range(len(x)):
        centring = torch.eye(WIDTH, dtype=x.dtype) - 1 / WIDTH
        weight = norm.weight.unsqueeze(1) * centring / std[token]
        below[token] = linear_rule(x[[token]], weight, norm.bias, relevance[[token]])[0]
    return below


def sum_rule(a, b, relevance):
    return a / (a + b) * relevance, b / (a + b) * relevance


def attention_rule(q, k, v, relevance, *, constant_attention):
    """Propositions 3.1 and 3.3 for one head: O = A V, A = softmax(S), S = q kᵀ / √d."""
    scale = q.shape[1] ** -0.5
    scores = q @ k.T * scale
    probabilities = scores.softmax(1)
    output = probabilities @ v
    share = 1 if constant_attention else 2
    on_q, on_k, on_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for j in range(TOKENS):
        on_probabilities = torch.zeros(TOKENS, dtype=q.dtype)
        for i in range(TOKENS):
            for p in range(v.shape[1]):
                part = probabilities[j, i] * v[i, p] * relevance[j, p] / (share * output[j, p])
                on_probabilities[i] += part
                on_v[i, p] += part
        if constant_attention:
            continue
        on_scores = scores[j] * (on_probabilities - probabilities[j] * on_probabilities.sum())
        for i in range(TOKENS):
            for d in range(q.shape[1]):
                part = q[j, d] * k[i, d] * scale * on_scores[i] / (2 * scores[j, i])
                on_q[j, d] += part
                on_k[i, d] += part
    return on_q, on_k, on_v


def block_rule(block, x, relevance, *, constant_attention):
    """Relevance below a pre-norm transformer block, given the relevance above it."""
    normed = block.norm1(x)
    qkv = block.attn.qkv(normed)
    heads = qkv.reshape(TOKENS, 3, HEADS, -1).permute(1, 2, 0, 3)
    mixed = torch.stack([F.softmax(q @ k.T * q.shape[1] ** -0.5, 1) @ v for q, k, v in zip(*heads, strict=True)])
    mixed_tokens = mixed.transpose(0, 1).reshape(TOKENS, WIDTH)
    attended = block.attn.proj(mixed_tokens)
    middle = x + attended
    normed2 = block.norm2(middle)
    hidden = block.mlp.fc1(normed2)
    activated = F.gelu(hidden)

    on_middle, on_mlp = sum_rule(middle, block.mlp.fc2(activated), relevance)
    on_hidden = linear_rule(activated, block.mlp.fc2.weight, block.mlp.fc2.bias, on_mlp)  # GELU passes it on
    on_normed2 = linear_rule(normed2, block.mlp.fc1.weight, block.mlp.fc1.bias, on_hidden)
    on_middle = on_middle + layer_norm_rule(middle, block.norm2, on_normed2)

    on_x, on_attended = sum_rule(x, attended, on_middle)
    on_mixed = linear_rule(mixed_tokens, block.attn.proj.weight, block.attn.proj.bias, on_attended)
    by_head = on_mixed.reshape(TOKENS, HEADS, -1).transpose(0, 1)
    parts = [
        attention_rule(*heads[:, head], by_head[head], constant_attention=constant_attention) for head in range(HEADS)
    ]
    on_qkv = torch.stack([torch.stack([part[k] for part in parts]) for k in range(3)])
    on_qkv = on_qkv.permute(2, 0, 1, 3).reshape(TOKENS, -1)
    on_normed = linear_rule(normed, block.attn.qkv.weight, block.attn.qkv.bias, on_qkv)
    return on_x + layer_norm_rule(x, block.norm1, on_normed)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("constant_attention", [True, False])
def test_a_transformer_block_follows_the_paper(constant_attention, fused):
    block = Block(WIDTH, HEADS, mlp_ratio=2, qkv_bias=True).double().eval()
    block.attn.fused_attn = fused
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    block.requires_grad_(False)
    x = torch.randn(1, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    with LRP(constant_attention=constant_attention):
        output = block(x)
    weights = torch.randn_like(output)
    (gradient,) = torch.autograd.grad(output, x, weights)
    expected = block_rule(block, x[0].detach(), (output * weights)[0].detach(), constant_attention=constant_attention)
    torch.testing.assert_close((x * gradient)[0].detach(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("layer", [nn.Linear(7, 5), nn.Linear(7, 5, bias=False), nn.Conv2d(7, 5, 2)])
def test_the_gamma_rule_is_that_of_the_paper(layer):
    """Andéol et al. 2021: R_i = Σ_j R_j (c_ij + γ c_ij*) / (z_j + γ z_j*); the star keeps what has the sign of z_j."""
    layer = layer.double().requires_grad_(False)
    x = torch.randn(7, dtype=torch.float64) if isinstance(layer, nn.Linear) else torch.randn(7, 3, 3).double()
    output, (relevance,) = relevance_of(lambda x: layer(x[None]), x, linear_gamma=0.3, convolution_gamma=0.3)
    assert torch.equal(output[0], layer(x))
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x).flatten(), x).flatten(1)
    contributions = jacobian * x.flatten()  # c_ij at [j, i]
    bias = layer(torch.zeros_like(x)).flatten()
    z = contributions.sum(1) + bias
    same = lambda c: torch.where(c * z.view(-1, *[1] * (c.ndim - 1)) > 0, c, 0)  # noqa: E731
    below = (contributions + 0.3 * same(contributions)) / (z + 0.3 * (same(contributions).sum(1) + same(bias)))[
        :, None
    ]
    expected = (below * z[:, None]).sum(0)
    torch.testing.assert_close(relevance.flatten(), expected, rtol=1e-8, atol=1e-10)


def relevance_of(function, *inputs, **gammas):
    inputs = [x.clone().requires_grad_() for x in inputs]
    with LRP(**gammas):
        output = function(*inputs)
    gradients = torch.autograd.grad(output.sum(), inputs)
    return output.detach(), [(x * g).detach() for x, g in zip(inputs, gradients, strict=True)]


@pytest.mark.parametrize(
    "product",
    [
        torch.mul,
        lambda a, b: a * b,
        lambda a, b: torch.einsum("ij,ij->ij", a, b),
        lambda a, b: a.matmul(b.transpose(0, 1)),
        lambda a, b: a @ b.transpose(0, 1),
        lambda a, b: torch.bmm(a[None], b.transpose(0, 1)[None]),
    ],
)
def test_two_activations_share_the_relevance_of_their_product(product):
    a, b = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    output, (on_a, on_b) = relevance_of(product, a, b)
    torch.testing.assert_close(on_a.sum(), output.sum() / 2)
    torch.testing.assert_close(on_b.sum(), output.sum() / 2)


def test_a_product_with_a_constant_passes_all_relevance_on():
    x, weight = torch.randn(4), torch.randn(4)
    output, (relevance,) = relevance_of(lambda a: a * weight * 3, x)
    torch.testing.assert_close(relevance, output)


@pytest.mark.parametrize("activation", [F.gelu, lambda x: F.gelu(x, approximate="tanh"), F.silu, F.relu])
def test_activations_pass_relevance_unchanged(activation):
    x = torch.cat([torch.randn(20), torch.zeros(1)])
    output, (relevance,) = relevance_of(activation, x)
    torch.testing.assert_close(relevance, output)
    assert torch.equal(output, activation(x))


@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_conserves_and_computes_the_same(affine):
    norm = nn.LayerNorm(8, elementwise_affine=affine, bias=False).requires_grad_(False)
    if affine:
        nn.init.normal_(norm.weight)
    x = torch.randn(3, 8)
    output, (relevance,) = relevance_of(norm, x)
    assert torch.equal(output, norm(x))
    torch.testing.assert_close(relevance.sum(1), output.sum(1))


@pytest.mark.parametrize("function", [torch.tanh, lambda x: x / x.sum(), torch.exp, torch.erf])
def test_a_function_without_a_rule_is_refused(function):
    with pytest.raises(UnsupportedArchitectureError, match="No LRP rule"):
        relevance_of(function, torch.randn(4))
