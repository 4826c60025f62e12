"""Optimizer arithmetic, parameter groups, schedule and clipping, against numbers by hand."""

import copy
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.operations import Operations
from optim.adamw import AdamW
from optim.build import build_optimizer
from optim.gradients import clip_gradients, drop_gradients, fill_gradients
from optim.schedule import learning_rate_at, set_learning_rates
from optim.state import load_optimizer_state, optimizer_state


def options(**changes) -> SimpleNamespace:
    values = {"optim": "adamw", "learning_rate": 1e-4, "lr_mul": 10.0, "betas": [0.9, 0.98]}
    return SimpleNamespace(**(values | {"weight_decay": 0.01, "apex": False} | changes))


class LoopAdamW:
    """The update written parameter by parameter, in double precision."""

    def __init__(self, parameters, lr, betas, eps, weight_decay):
        self.parameters = [(p, p.detach().double().clone()) for p in parameters]
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.state = {}

    def step(self):
        beta1, beta2 = self.betas
        for source, value in self.parameters:
            if source.grad is None:
                continue
            zero = torch.zeros_like(value)
            t, mean, square = self.state.get(source, (0, zero, zero))
            gradient = source.grad.double()
            t += 1
            mean = beta1 * mean + (1 - beta1) * gradient
            square = beta2 * square + (1 - beta2) * gradient**2
            self.state[source] = (t, mean, square)
            rate = self.lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
            value -= rate * mean / (square.sqrt() + self.eps)
            value -= self.lr * self.weight_decay * value


class Heads(nn.Module):
    """The kinds of name that decide a parameter's group, and a tied weight."""

    def __init__(self):
        super().__init__()
        self.v_encoder = nn.ModuleDict(
            {
                "words": nn.Embedding(5, 4),
                "LayerNorm": nn.LayerNorm(4),
                "feat_regress": nn.ModuleDict({"net": nn.Sequential(nn.Linear(4, 4), nn.GELU())}),
                "lm_head": nn.Linear(4, 5),
            }
        )
        self.v_encoder["feat_regress"]["net"].append(nn.LayerNorm(4))
        self.v_encoder["lm_head"].weight = self.v_encoder["words"].weight
        self.qa_pool = nn.Linear(4, 1)
        self.LayerNorm = nn.LayerNorm(4)
        self.frozen = nn.Linear(4, 1).requires_grad_(False)


def random_parameters(count: int = 4) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(3, i + 1, generator=generator)) for i in range(count)]


def test_first_two_steps_by_hand():
    # Step 1: m = 0.1·0.5, v = 0.02·0.25, c1 = 0.1, c2 = 0.02. A large eps shows where it is added.
    parameter = nn.Parameter(torch.tensor([2.0]))
    optimizer = AdamW([parameter], lr=0.1, betas=(0.9, 0.98), eps=0.1, weight_decay=0.5)
    parameter.grad = torch.tensor([0.5])
    optimizer.step()
    first = 2 - 0.1 * (math.sqrt(0.02) / 0.1) * 0.05 / (math.sqrt(0.005) + 0.1)
    first *= 1 - 0.1 * 0.5
    assert parameter.item() == pytest.approx(first, abs=1e-6)
    # Step 2, gradient −1: m = 0.9·0.05 − 0.1, v = 0.98·0.005 + 0.02, c1 = 0.19, c2 = 0.0396.
    parameter.grad = torch.tensor([-1.0])
    optimizer.step()
    second = first + 0.1 * (math.sqrt(0.0396) / 0.19) * 0.055 / (math.sqrt(0.0249) + 0.1)
    second *= 1 - 0.1 * 0.5
    assert parameter.item() == pytest.approx(second, abs=1e-6)


def test_equals_plain_loop_with_parameters_that_join_late():
    parameters = random_parameters()
    settings = {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1}
    fused, loop = AdamW(parameters, **settings), LoopAdamW(parameters, **settings)
    generator = torch.Generator().manual_seed(2)
    start = parameters[3].detach().clone()
    for step in range(12):
        drop_gradients(fused)
        for index, parameter in enumerate(parameters[:3]):
            # The second parameter joins at step 4; the third is used in step 2 alone.
            if index == 0 or (index == 1 and step >= 4) or (index == 2 and step == 2):
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        fill_gradients(fused)
        fused.step()
        loop.step()
    for parameter, (_, value) in zip(parameters, loop.parameters):
        torch.testing.assert_close(parameter.detach().double(), value, atol=2e-6, rtol=1e-5)
    assert torch.equal(parameters[3], start), "a parameter that never had a gradient moved"
    assert [fused.state[p]["step"] for p in parameters[:3]] == [12, 8, 10]


def test_close_to_torch_with_corrected_epsilon():
    # PyTorch's AdamW with eps/√c2 differs in terms of lr² only.
    ours, theirs = random_parameters(1), random_parameters(1)
    first = AdamW(ours, lr=1e-3, betas=(0.9, 0.98), eps=1e-3, weight_decay=0.1)
    second = torch.optim.AdamW(theirs, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1)
    for step in range(1, 6):
        ours[0].grad = torch.full_like(ours[0], 0.1 * step)
        theirs[0].grad = ours[0].grad.clone()
        second.param_groups[0]["eps"] = 1e-3 / math.sqrt(1 - 0.98**step)
        first.step()
        second.step()
    torch.testing.assert_close(ours[0], theirs[0], atol=2e-6, rtol=0)


def test_state_goes_on_bit_for_bit():
    parameters = random_parameters()
    optimizer = AdamW(parameters, lr=0.01)
    gradients = [torch.full_like(p, 0.3) for p in parameters]

    def steps(target, its_optimizer):
        for p, gradient in zip(target, gradients):
            p.grad = gradient.clone()
        its_optimizer.step()

    steps(parameters, optimizer)
    resumed = [nn.Parameter(p.detach().clone()) for p in parameters]
    other = AdamW(resumed, lr=0.5)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(parameters, optimizer)
    steps(resumed, other)
    assert all(torch.equal(a, b) for a, b in zip(parameters, resumed))
    assert [other.state[p]["step"] for p in resumed] == [2, 2, 2, 2]


def one_step(model, optimizer) -> None:
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 0.1 * (number + 1))
    optimizer.step()


def state_by_name(model, optimizer) -> dict[str, dict]:
    return {name: optimizer.state[p] for name, p in model.named_parameters() if p.requires_grad}


def saved_after_a_step(**changes) -> tuple[dict, dict]:
    """What a restore point holds of an optimizer, and its state by name."""
    model = Heads()
    optimizer = build_optimizer(model, options(**changes))
    one_step(model, optimizer)
    saved = copy.deepcopy(optimizer_state(model, optimizer))
    return saved, copy.deepcopy(state_by_name(model, optimizer))


@pytest.mark.parametrize("optim", ["adamw", "adam", "adamax"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lr_mul": 1.0},
        {"weight_decay": 0.0},
        {"lr_mul": 3.0, "weight_decay": 0.5, "betas": [0.5, 0.6]},
        {"lr_mul": 1.0, "weight_decay": 0.0},
    ],
)
def test_moments_follow_names_into_the_groups_of_the_options(optim, changes, caplog):
    saved, wanted = saved_after_a_step(optim=optim)
    model = Heads()
    optimizer = build_optimizer(model, options(optim=optim, **changes))
    groups = [dict(group) for group in optimizer.param_groups]
    load_optimizer_state(model, optimizer, saved)
    assert [dict(group) for group in optimizer.param_groups] == groups
    restored = state_by_name(model, optimizer)
    assert restored.keys() == wanted.keys()
    for name, state in restored.items():
        assert state.keys() == wanted[name].keys()
        for key, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(wanted[name][key])), name
    assert not caplog.text
    one_step(model, optimizer)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("optim", ["adam", "adamax"])
def test_moments_of_another_optimizer_start_again(optim, named, caplog):
    saved, _ = saved_after_a_step(optim=optim)
    if not named:
        del saved["kind"], saved["names"]
    model = Heads()
    optimizer = build_optimizer(model, options())
    load_optimizer_state(model, optimizer, saved)
    assert not optimizer.state and caplog.text.count("moments start again") == 1
    one_step(model, optimizer)


def test_older_restore_points_without_names(caplog):
    saved, wanted = saved_after_a_step()
    del saved["kind"], saved["names"]
    model = Heads()
    optimizer = build_optimizer(model, options(weight_decay=0.5))  # groups of the same parameters
    load_optimizer_state(model, optimizer, saved)
    for name, state in state_by_name(model, optimizer).items():
        assert torch.equal(state["exp_avg"], wanted[name]["exp_avg"])
    assert not caplog.text
    other = build_optimizer(model, options(lr_mul=1.0))
    load_optimizer_state(model, other, saved)
    assert not other.state and "of other parameter groups" in caplog.text


def test_apex_goes_on_counting_steps(stand_in_apex, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    saved, _ = saved_after_a_step(apex=True)
    model = Heads()
    optimizer = build_optimizer(model, options(apex=True, lr_mul=1.0))
    load_optimizer_state(model, optimizer, saved)
    assert [group["step"] for group in optimizer.param_groups] == [1, 1]
    one_step(model, optimizer)
    assert [group["step"] for group in optimizer.param_groups] == [2, 2]


def test_closure_returns_its_loss():
    parameter = nn.Parameter(torch.ones(1))

    def closure():
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    assert AdamW([parameter], lr=0.1).step(closure).item() == 1.0
    assert parameter.item() < 1.0


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"eps": -1.0}, {"betas": (0.9, 1.0)}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError):
        AdamW(random_parameters(1), **wrong)


def group_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    groups = {
        id(p): (g["lr_mul"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
    }
    return {name: groups[id(p)] for name, p in model.named_parameters() if id(p) in groups}


def test_groups_by_name():
    model = Heads()
    optimizer = build_optimizer(model, options())
    assert group_of(model, optimizer) == {
        "v_encoder.words.weight": (1.0, 0.01),
        "v_encoder.LayerNorm.weight": (1.0, 0.0),
        "v_encoder.LayerNorm.bias": (1.0, 0.0),
        "v_encoder.feat_regress.net.0.weight": (1.0, 0.01),
        "v_encoder.feat_regress.net.0.bias": (1.0, 0.0),
        # A layer norm by kind, but not by name: it decays.
        "v_encoder.feat_regress.net.2.weight": (1.0, 0.01),
        "v_encoder.feat_regress.net.2.bias": (1.0, 0.0),
        "v_encoder.lm_head.bias": (1.0, 0.0),
        "qa_pool.weight": (10.0, 0.01),
        "qa_pool.bias": (10.0, 0.0),
        "LayerNorm.weight": (10.0, 0.0),
        "LayerNorm.bias": (10.0, 0.0),
    }
    assert {g["lr_mul"]: g["lr"] for g in optimizer.param_groups} == {1.0: 1e-4, 10.0: 1e-3}
    assert all(group["betas"] == (0.9, 0.98) for group in optimizer.param_groups)


def test_equal_groups_are_one():
    optimizer = build_optimizer(Heads(), options(lr_mul=1.0))
    assert sorted(len(group["params"]) for group in optimizer.param_groups) == [4, 8]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", AdamW), ("adam", torch.optim.Adam), ("adamax", torch.optim.Adamax)],
)
def test_optim_option(name, kind):
    assert type(build_optimizer(Heads(), options(optim=name))) is kind


def test_decay_uses_the_groups_own_rate():
    model = Heads()
    optimizer = build_optimizer(model, options(weight_decay=1.0))
    before = model.qa_pool.weight.detach().clone()
    encoder_before = model.v_encoder["words"].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.qa_pool.weight.detach(), before * (1 - 1e-3))
    torch.testing.assert_close(
        model.v_encoder["words"].weight.detach(), encoder_before * (1 - 1e-4)
    )


def test_without_apex_the_plain_optimizer_takes_over(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "apex", None)
    assert type(build_optimizer(Heads(), options(apex=True))) is AdamW
    assert "--apex" in caplog.text


def test_apex_needs_a_gpu(stand_in_apex, caplog):
    assert type(build_optimizer(Heads(), options(apex=True))) is AdamW
    assert "needs a GPU" in caplog.text


class StandInFusedAdam(torch.optim.AdamW):
    """The arithmetic of apex's FusedAdam: PyTorch's AdamW, the step counted in the group."""

    def __init__(self, params, lr=1e-3, *, betas, eps, adam_w_mode, set_grad_none):
        assert adam_w_mode and not set_grad_none
        super().__init__(params, lr=lr, betas=betas, eps=eps)

    def step(self, closure=None):
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
        return super().step(closure)


@pytest.fixture
def stand_in_apex(monkeypatch):
    apex, optimizers = ModuleType("apex"), ModuleType("apex.optimizers")
    optimizers.FusedAdam = StandInFusedAdam
    monkeypatch.setitem(sys.modules, "apex", apex)
    monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)


def test_apex_epsilon_follows_the_correction(stand_in_apex, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    ours, theirs = Heads(), Heads()
    theirs.load_state_dict(ours.state_dict())
    plain = build_optimizer(ours, options(learning_rate=1e-3))
    fused = build_optimizer(theirs, options(learning_rate=1e-3, apex=True))
    assert isinstance(fused, StandInFusedAdam)
    for _ in range(5):
        for a, b in zip(ours.parameters(), theirs.parameters()):
            a.grad = torch.full_like(a, 1e-6)  # as small as eps, so that its place shows
            b.grad = a.grad.clone()
        plain.step()
        fused.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (1, 2e-7),  # TVR's recipe: 1e-4, 500 of 5000
        (250, 5e-5),
        (499, 9.98e-5),
        (500, 1e-4),
        (501, 1e-4 * 4499 / 4500),
        (2750, 5e-5),
        (4999, 1e-4 / 4500),
        (5000, 1e-8),
        (6000, 1e-8),
    ],
)
def test_schedule(step, rate):
    assert learning_rate_at(step, 1e-4, 500, 5000) == pytest.approx(rate, rel=1e-12)


def test_schedule_without_warm_up_and_without_decay():
    assert learning_rate_at(1, 1.0, 0, 4) == 0.75
    assert learning_rate_at(3, 1.0, 4, 4) == 0.75
    assert learning_rate_at(4, 1.0, 4, 4) == 1e-8


def test_heads_get_their_multiple():
    optimizer = build_optimizer(Heads(), options())
    set_learning_rates(optimizer, 2e-4)
    assert {g["lr_mul"]: g["lr"] for g in optimizer.param_groups} == {1.0: 2e-4, 10.0: 2e-3}


def test_clip_over_all_parameters_together():
    parameters = [
        nn.Parameter(torch.zeros(1)),
        nn.Parameter(torch.zeros(2)),
        nn.Parameter(torch.zeros(1)),
    ]
    parameters[0].grad = torch.tensor([3.0])
    parameters[1].grad = torch.tensor([0.0, 4.0])
    assert clip_gradients(parameters, -1).item() == 5.0
    assert parameters[0].grad.item() == 3.0
    assert clip_gradients(parameters, 10.0).item() == 5.0
    assert parameters[0].grad.item() == 3.0
    assert clip_gradients(parameters, 1.0).item() == 5.0
    assert parameters[0].grad.item() == pytest.approx(0.6, abs=1e-6)
    assert parameters[1].grad.tolist() == pytest.approx([0.0, 0.8], abs=1e-6)
    assert clip_gradients([parameters[2]], 1.0).item() == 0.0


def test_a_gradient_in_another_order_of_memory():
    ordered, turned = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 4))
    values = torch.arange(12.0).view(4, 3)
    ordered.grad, turned.grad = values.T.contiguous(), values.T
    for parameter in (ordered, turned):
        AdamW([parameter], lr=0.1).step()
    assert torch.equal(ordered, turned) and len(ordered.unique()) > 1


def test_one_operation_updates_all_parameters_of_a_group():
    parameters = random_parameters()
    optimizer = AdamW([{"params": parameters[:2]}, {"params": parameters[2:]}])
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    counter = Operations()
    with counter, counter.count("step"):
        optimizer.step()
    assert counter.parts["step"] == {"_fused_adamw_": 2, "full": 2}


def test_after_restoring_moments_keep_moving_their_parameter():
    used, unused = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = AdamW([used, unused], lr=0.1)
    used.grad = torch.ones(2)
    optimizer.step()
    restored = [nn.Parameter(p.detach().clone()) for p in (used, unused)]
    other = AdamW(restored)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each in (optimizer, other):
        drop_gradients(each)
        fill_gradients(each)
        each.step()
    assert torch.equal(restored[0], used)
    assert restored[1].grad is None and unused.grad is None
