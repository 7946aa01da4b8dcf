"""The angular-margin loss against closed formulas, pytorch-metric-learning and its properties."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.losses import ArcFaceLoss, CosFaceLoss, SphereFaceLoss

from vgeo.errors import VgeoError
from vgeo.training.losses import MARGINS, AngularMarginLoss, Margin, angle, psi, tell_apart

PRESETS = pytest.mark.parametrize("margin", MARGINS.values(), ids=MARGINS.keys())


DETACHED = pytest.mark.parametrize("detached", [True, False], ids=["detached", "exact"])


def make(margin, dim=16, classes=7, batch=9, dtype=torch.float64, seed=0, detached=True):
    generator = torch.Generator().manual_seed(seed)
    loss = AngularMarginLoss(dim, classes, margin, detached).to(dtype)
    loss.weight.data = torch.randn(classes, dim, generator=generator, dtype=dtype)
    descriptors = F.normalize(torch.randn(batch, dim, generator=generator, dtype=dtype))
    return loss, descriptors, torch.randint(classes, (batch,), generator=generator)


def at_angles(theta, margin, dtype, detached):
    """A loss with classes along e0 and e1, and for each angle to e0 a descriptor towards e2."""
    theta = torch.as_tensor(theta, dtype=torch.float64)
    loss = AngularMarginLoss(3, 2, margin, detached).to(dtype)
    loss.weight.data = torch.eye(3, dtype=dtype)[:2]
    descriptors = torch.stack([theta.cos(), torch.zeros_like(theta), theta.sin()], dim=1).to(dtype)
    return loss, descriptors.requires_grad_(), torch.zeros(len(theta), dtype=torch.int64)


def monotonic_cosine(phi):
    """cos, going on to fall where cos would rise: 1 minus the integral of |sin| from 0 to phi."""
    whole, rest = divmod(phi, math.pi)
    return 1 - 2 * whole - (1 - math.cos(rest))


def closed_formula(descriptors, weight, labels, margin):
    """Mean loss in float64, one query and class at a time."""
    losses = []
    for descriptor, label in zip(descriptors.double().numpy(), labels.tolist()):
        logits = []
        for c, w in enumerate(weight.detach().double().numpy()):
            cosine = descriptor @ w / np.linalg.norm(w) / np.linalg.norm(descriptor)
            if c == label:
                cosine = (
                    monotonic_cosine(margin.m1 * math.acos(np.clip(cosine, -1, 1)) + margin.m2)
                    - margin.m3
                )
            logits.append(margin.s * cosine)
        losses.append(np.logaddexp.reduce(logits) - logits[label])
    return np.mean(losses)


@PRESETS
@DETACHED
@pytest.mark.parametrize("dim", [2, 16])  # in 2 dimensions angles come near 0 and pi
def test_closed_formula(margin, dim, detached):
    loss, descriptors, labels = make(margin, dim=dim, batch=40, detached=detached)
    expected = closed_formula(descriptors, loss.weight, labels, margin)
    assert loss(descriptors, labels).item() == pytest.approx(expected, rel=1e-12)
    loss.float()
    assert loss(descriptors.float(), labels).item() == pytest.approx(expected, rel=1e-5)


@PRESETS
def test_scale_of_the_inputs_is_irrelevant(margin):
    loss, descriptors, labels = make(margin)
    expected = loss(descriptors, labels).item()
    loss.weight.data *= 3
    assert loss(descriptors * 5, labels).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "margin", [*MARGINS.values(), Margin(s=2, m1=4), Margin(s=2, m1=1.3, m2=0.2, m3=0.1)], ids=str
)
def test_exact_gradients_against_finite_differences(margin):
    loss, descriptors, labels = make(margin, dim=4, classes=5, batch=6, detached=False)

    def value(descriptors, weight):
        return torch.func.functional_call(loss, {"weight": weight}, (descriptors, labels))

    assert torch.autograd.gradcheck(value, (descriptors.requires_grad_(), loss.weight))


def detached_gradients(descriptors, weight, labels, margin):
    """Closed form: the softmax is that of the margin's logits, the logits are s cos(theta).

    d loss / d logit_j = (p_j - y_j) / B; a gradient g with respect to a unit vector v / |v| is
    (g - (g v) v) / |v| with respect to v.
    """

    def through_the_norm(g, v, norm):
        return (g - (g * v).sum(1, keepdims=True) * v) / norm

    x, w = descriptors.detach().numpy(), weight.detach().numpy()
    x_norm, w_norm = (np.linalg.norm(v, axis=1, keepdims=True) for v in (x, w))
    x, w = x / x_norm, w / w_norm
    logits, rows = margin.s * x @ w.T, np.arange(len(x))
    theta = np.arccos(np.clip(logits[rows, labels] / margin.s, -1, 1))
    scores = [monotonic_cosine(margin.m1 * t + margin.m2) - margin.m3 for t in theta]
    logits[rows, labels] = margin.s * np.array(scores)
    error = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    error[rows, labels] -= 1
    error *= margin.s / len(x)
    return through_the_norm(error @ w, x, x_norm), through_the_norm(error.T @ x, w, w_norm)


@PRESETS
@pytest.mark.parametrize("scale", [1, 3])
def test_detached_gradients_against_the_closed_form(margin, scale):
    loss, descriptors, labels = make(margin)
    descriptors = (scale * descriptors).requires_grad_()
    loss(descriptors, labels).backward()
    expected = detached_gradients(descriptors, loss.weight, labels.numpy(), margin)
    for ours, theirs in zip((descriptors.grad, loss.weight.grad), expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9, atol=1e-12)


@PRESETS
def test_detaching_changes_gradients_where_there_is_an_angle(margin):
    gradients = []
    for detached in (True, False):
        loss, descriptors, labels = make(margin, detached=detached)
        loss(descriptors, labels).backward()
        gradients.append(loss.weight.grad)
    apart = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert apart == 0 if margin == MARGINS["CosFace"] else apart > 0.05


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # within SphereFaceLoss
@pytest.mark.parametrize(
    ("margin", "oracle", "oracle_margin"),
    [
        (MARGINS["CosFace"], CosFaceLoss, 0.40),
        (MARGINS["ArcFace"], ArcFaceLoss, math.degrees(0.5)),
        # SphereFaceLoss takes whole m1 only; the scale keeps the softmax away from saturation.
        (Margin(s=5, m1=2), SphereFaceLoss, 2),
        (Margin(s=5, m1=3), SphereFaceLoss, 3),
        (Margin(s=5, m1=4), SphereFaceLoss, 4),
    ],
    ids=lambda value: str(value) if isinstance(value, Margin) else "",
)
def test_pytorch_metric_learning(margin, oracle, oracle_margin):
    loss, descriptors, labels = make(margin, dim=8, classes=6, batch=50, detached=False)
    detached = make(margin, dim=8, classes=6, batch=50)[0]
    theta = angle(descriptors, F.normalize(loss.weight)[labels])
    beyond = margin.m1 * theta + margin.m2 > math.pi
    if oracle is ArcFaceLoss:  # its continuation beyond pi is another one
        descriptors, labels = descriptors[~beyond], labels[~beyond]
    elif oracle is SphereFaceLoss:
        assert beyond.any()
    other = oracle(num_classes=6, embedding_size=8, margin=oracle_margin, scale=margin.s).double()
    other.W.data = loss.weight.data.T.clone()
    ours, theirs = loss(descriptors, labels), other(descriptors, labels)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(detached(descriptors, labels), theirs)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(loss.weight.grad, other.W.grad.T)


@PRESETS
@DETACHED
def test_edges_are_right_and_have_finite_gradients(margin, detached):
    near = [0, 1e-8, 1e-4, 1e-3]
    for theta in [*near, *(math.pi - x for x in near)]:
        target = margin.s * (monotonic_cosine(margin.m1 * theta + margin.m2) - margin.m3)
        for dtype, absolute in [(torch.float64, 1e-12), (torch.float32, 1e-6)]:
            loss, descriptors, labels = at_angles([theta], margin, dtype, detached)
            value = loss(descriptors, labels)
            assert value.item() == pytest.approx(
                np.logaddexp(0, -target), rel=1e-5, abs=absolute
            ), (theta, dtype)
        value.backward()
        assert descriptors.grad.isfinite().all() and loss.weight.grad.isfinite().all(), theta
        assert descriptors.grad.abs().max() < 5 * margin.s, theta


@PRESETS
def test_gradient_near_the_edges(margin):
    """d psi / d theta = -m1 |sin(m1 theta + m2)|, where acos in float32 would lose its digits."""
    for theta in [1e-5, 1e-3, 1.0, 3.0, math.pi - 1e-3]:
        a = torch.tensor([[math.cos(theta), math.sin(theta)]], requires_grad=True)
        psi(angle(a, torch.tensor([[1.0, 0.0]])), margin).sum().backward()
        along = a.grad[0, 1] * math.cos(theta) - a.grad[0, 0] * math.sin(theta)
        assert along.item() == pytest.approx(
            -margin.m1 * abs(math.sin(margin.m1 * theta + margin.m2)), abs=1e-4
        ), theta


@pytest.mark.parametrize(
    "theta", [0, 1e-6, 1e-3, 1.0, 3.0, math.pi - 1e-3, math.pi - 1e-6, math.pi]
)
def test_angle_keeps_its_digits(theta):
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(theta), math.sin(theta)])
    assert angle(a, b).item() == pytest.approx(theta, abs=5e-7)


@PRESETS
def test_psi_falls_all_the_way(margin):
    theta = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    score = psi(theta, margin)
    assert (score.diff() < 0).all()
    assert score.diff().abs().max() < 3e-4  # no jump where the extension begins
    expected = [monotonic_cosine(margin.m1 * t + margin.m2) - margin.m3 for t in theta.tolist()]
    np.testing.assert_allclose(score, expected, atol=1e-12)


@given(
    st.floats(0.1, 8),
    st.floats(-1, 4),
    st.floats(-1, 1),
    st.floats(0, math.pi),
    st.floats(0, math.pi),
)
def test_psi_falls_for_any_margin(m1, m2, m3, x, y):
    margin = Margin(s=1, m1=m1, m2=m2, m3=m3)
    nearer, further = psi(torch.tensor(sorted([x, y]), dtype=torch.float64), margin).tolist()
    assert nearer >= further - 1e-9


@PRESETS
def test_bfloat16(margin):
    loss, descriptors, labels = make(margin, dim=64, classes=20, batch=32, dtype=torch.float32)
    half = descriptors.bfloat16().requires_grad_()
    expected = closed_formula(half.detach(), loss.weight, labels, margin)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, labels)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert (
        half.grad.isfinite().all()
        and loss.weight.grad.isfinite().all()
        and loss.weight.grad.dtype == torch.float32
    )


@pytest.mark.parametrize(
    "values", [{"s": 0}, {"s": 30, "m1": 0}, {"s": math.nan}, {"s": 30, "m2": math.inf}]
)
def test_impossible_margins(values):
    with pytest.raises(VgeoError, match="^Margin[^\n]*above 0"):
        Margin(**values)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_infonce_by_hand(temperature):
    a, b = torch.eye(3), torch.eye(3)[[0, 2, 1]]
    logits = (a @ b.T / temperature).double().numpy()
    expected = np.mean([np.logaddexp.reduce(row) - row[i] for i, row in enumerate(logits)])
    assert tell_apart(a, b, temperature).item() == pytest.approx(expected, rel=1e-5)
    if temperature == 0.1:
        assert tell_apart(a, b).item() == pytest.approx(expected, rel=1e-5)


def test_infonce_is_in_float32_under_autocast():
    generator = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(8, 16, generator=generator)) for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = tell_apart(a, b)
    assert found.dtype == torch.float32 and found == tell_apart(a, b)


def test_settings_of_the_original():
    assert {
        "CosFace": Margin(s=30, m1=1, m2=0, m3=0.4),
        "ArcFace": Margin(s=64, m1=1, m2=0.5, m3=0),
        "SphereFace": Margin(s=30, m1=1.5, m2=0, m3=0),
    } == MARGINS
