"""Generator and critic against the paper's description, the penalty against its formula."""

import pytest
import torch
from augkit_dagan.dagan import usual_widths
from augkit_dagan.networks import build_critic, build_generator, initialise, n_doublings
from augkit_dagan.training import gradient_penalty
from torch import nn


def seeded(*networks, seed=0):
    initialise(networks, torch.Generator().manual_seed(seed))
    return networks if len(networks) > 1 else networks[0]


def layers(network):
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    return [m for m in network.modules() if isinstance(m, kinds)]


def n_parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_the_generator_of_the_paper_has_11_layers_and_gives_192x160():
    generator = seeded(build_generator(128, usual_widths(5), (160, 192), 1))
    assert generator.base == (5, 6)
    assert len(layers(generator)) == 11
    assert all(m.kernel_size == (5, 5) for m in layers(generator)[1:])
    images = generator(torch.rand(2, 128))
    assert images.shape == (2, 1, 160, 192)
    assert float(images.detach().abs().max()) <= 1


def test_the_critic_of_the_paper_has_10_convolutions_and_2_fully_connected_layers():
    critic = seeded(build_critic(usual_widths(5), (160, 192), 1))
    kinds = [type(m) for m in layers(critic)]
    assert (kinds.count(nn.Conv2d), kinds.count(nn.Linear)) == (10, 2)
    strides = [m.stride[0] for pair in zip(critic.convs, critic.downs, strict=True) for m in pair]
    assert strides == [1, 2] * 5
    assert critic(torch.zeros(3, 1, 160, 192)).shape == (3,)


def test_both_networks_of_the_paper_have_about_four_million_weights():
    widths = usual_widths(5)
    assert widths == (256, 128, 64, 32, 16)
    assert n_parameters(build_generator(128, widths, (160, 192), 1)) == pytest.approx(
        4.3e6, rel=0.1
    )
    assert n_parameters(build_critic(widths, (160, 192), 1)) == pytest.approx(4.3e6, rel=0.3)


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (40, 48), (64, 64), (80, 96), (152, 200)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_of_multiples_of_8_can_be_doubled_to(size, channels):
    widths = (4,) * n_doublings(*size)
    generator, critic = seeded(
        build_generator(7, widths, size, channels), build_critic(widths, size, channels)
    )
    images = generator(torch.rand(2, 7))
    assert images.shape == (2, channels, *size)
    assert critic(images).shape == (2,)


def test_the_number_of_doublings_follows_from_the_size():
    sizes = {(160, 192): 5, (80, 96): 4, (40, 48): 3, (64, 64): 4, (8, 8): 1, (152, 200): 3}
    assert {size: n_doublings(*size) for size in sizes} == sizes


def test_weights_are_drawn_from_the_seed_and_leave_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    first, second, other = (
        seeded(build_generator(5, (4,), (8, 8), 1), seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.first.weight, second.first.weight)
    assert not torch.equal(first.first.weight, other.first.weight)


def test_initial_weights_keep_the_spread_of_what_flows_through():
    generator = seeded(build_generator(128, usual_widths(4), (80, 96), 1))
    for layer in [*generator.convs[1:], generator.first]:
        fan_in = layer.weight[0].numel()
        assert float(layer.weight.detach().std()) == pytest.approx(
            (2 / 1.04 / fan_in) ** 0.5, rel=0.05
        )
    assert float(generator.first.bias.detach().abs().max()) == 0


def test_the_input_gradient_is_that_of_automatic_differentiation():
    critic = seeded(build_critic((8, 4), (16, 24), 3)).double()
    x = torch.randn(5, 3, 16, 24, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    found = critic.input_gradient(x.detach())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for parameter in critic.parameters():
        parameter.grad = None
    (expected.flatten(1).norm(dim=1) - 1).square().mean().backward()
    by_autograd = [p.grad for p in critic.parameters()]
    critic.zero_grad()
    (found.flatten(1).norm(dim=1) - 1).square().mean().backward()
    for name, parameter, wanted in zip(
        dict(critic.named_parameters()), critic.parameters(), by_autograd, strict=True
    ):
        if name.endswith("bias"):  # the gradient by the image does not depend on any bias
            assert parameter.grad is None
            assert wanted is None or float(wanted.abs().max()) == 0
        else:
            torch.testing.assert_close(parameter.grad, wanted, rtol=1e-8, atol=1e-12)


class Line(nn.Module):
    """The critic D(x) = w.x, whose gradient is w everywhere."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x):
        return (x * self.weights).sum((1, 2, 3))

    def input_gradient(self, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self(x).sum(), x, create_graph=True)[0]


@pytest.mark.parametrize("length", [0.25, 1.0, 3.0])
def test_a_linear_critic_has_exactly_the_penalty_of_its_length(length):
    weights = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(1))
    weights *= length / weights.norm()
    critic = Line(weights)
    penalty = gradient_penalty(critic, torch.randn(4, 3, 16, 24))
    assert float(penalty.detach()) == pytest.approx((length - 1) ** 2, abs=1e-6)
    penalty.backward()
    expected = 2 * (length - 1) * weights / length
    torch.testing.assert_close(critic.weights.grad, expected, rtol=1e-4, atol=1e-6)


def test_a_norm_over_one_axis_alone_would_be_seen():
    weights = torch.ones(1, 16, 24) / (16 * 24) ** 0.5  # of length 1 as a whole
    x = torch.randn(4, 1, 16, 24)
    assert float(gradient_penalty(Line(weights), x).detach()) == pytest.approx(0, abs=1e-10)
    wrong = (Line(weights).input_gradient(x).norm(dim=1) - 1).square().mean()
    assert float(wrong.detach()) > 0.5


def test_a_critic_made_linear_has_the_penalty_of_the_line_it_is():
    critic = seeded(build_critic((4,), (8, 8), 1)).double()
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64) + 5
    with torch.no_grad():  # all weights positive: every leaky ReLU is on its steep side
        for parameter in critic.parameters():
            parameter.abs_()
    line = torch.autograd.functional.jacobian(lambda y: critic(y).sum(), x[:1])
    expected = float((line.norm() - 1) ** 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradient_penalty(critic.float(), x.float())
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
