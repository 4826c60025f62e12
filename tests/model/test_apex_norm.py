"""Fused layer norms: same names, same results."""

import copy

import pytest
import torch
from torch import nn

from model.apex_norm import replace_layer_norms, use_fused_layer_norm
from model.layers import LinearProjection


class PlainNorm(nn.Module):
    """Another implementation with the constructor of apex's."""

    def __init__(self, shape, eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(LinearProjection(6, 4, 0.0), nn.LayerNorm(4, eps=1e-12))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def test_replaced_norms_keep_names_weights_and_results(model):
    other = copy.deepcopy(model)
    assert replace_layer_norms(other, PlainNorm) == 2
    assert not any(type(module) is nn.LayerNorm for module in other.modules())
    assert other[1].eps == 1e-12
    assert other.state_dict().keys() == model.state_dict().keys()
    x = torch.randn(3, 6)
    torch.testing.assert_close(other(x), model(x))


def test_without_apex_or_a_gpu_nothing_changes(model, caplog):
    assert use_fused_layer_norm(model) == 0
    assert "using PyTorch's" in caplog.text


@pytest.mark.gpu
def test_apex_gives_what_pytorch_gives(model):
    pytest.importorskip("apex.normalization")
    fused = copy.deepcopy(model).cuda()
    assert use_fused_layer_norm(fused) == 2
    x = torch.randn(3, 6)
    torch.testing.assert_close(fused(x.cuda()).cpu(), model(x), atol=1e-5, rtol=1e-5)
