"""Networks that others trained: outputs against the published structure written out anew, and use as a prior."""

import json
import pickle
import re
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from sciresdiff import tiling
from sciresdiff.errors import InputError, UsageError
from sciresdiff.jobs.upscale.inputs import warn_networks
from sciresdiff.lab.published import load_prior as importing
from sciresdiff.lab.published import networks as nets
from sciresdiff.lab.published.networks import MisfitError, build_network, recognise
from sciresdiff.lab.published.prior import Planes, PublishedConfig, PublishedPrior, Unit, asinh, linear
from sciresdiff.observation.observation import Observation
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator
from sciresdiff.restoration.model import Model, load, save
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings
from sciresdiff.training import refiner as refiner_training
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.recipe import DataRecipe

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32, sums in another order
MEAN = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)


class Weights(dict):
    """Random weights by name; made when a layer of the published description is listed."""

    def conv(self, name, inputs, outputs, side=3):
        self[name + ".weight"] = torch.randn(outputs, inputs, side, side) * (0.7 / (inputs * side**2) ** 0.5)
        self[name + ".bias"] = 0.05 * torch.randn(outputs)

    def linear(self, name, inputs, outputs):
        self[name + ".weight"] = torch.randn(outputs, inputs) / inputs**0.5
        self[name + ".bias"] = 0.05 * torch.randn(outputs)

    def norm(self, name, width):
        self[name + ".weight"], self[name + ".bias"] = 1 + 0.1 * torch.randn(width), 0.1 * torch.randn(width)


def conv(w, name, x):
    kernel = w[name + ".weight"]
    return F.conv2d(x, kernel, w[name + ".bias"], padding=kernel.shape[-1] // 2)


def lrelu(x, slope=0.2):
    return torch.where(x > 0, x, slope * x)


def twice(x):
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


# --- ESRGAN


def rrdb_weights(depth=2, nf=8, gc=4, unshuffle=1, colours=3, ups=2):
    w = Weights()
    w.conv("conv_first", colours * unshuffle**2, nf)
    for n in range(depth):
        for r in (1, 2, 3):
            for k in range(5):
                w.conv(f"body.{n}.rdb{r}.conv{k + 1}", nf + k * gc, gc if k < 4 else nf)
    for name in ["conv_body", *(f"conv_up{k + 1}" for k in range(ups)), "conv_hr"]:
        w.conv(name, nf, nf)
    w.conv("conv_last", nf, colours)
    return w


def rrdb(w, x, depth=2, unshuffle=1, ups=2):
    x = conv(w, "conv_first", F.pixel_unshuffle(x, unshuffle))
    y = x
    for n in range(depth):
        block = y
        for r in (1, 2, 3):
            features = dense = block
            for k in range(1, 5):
                new = lrelu(conv(w, f"body.{n}.rdb{r}.conv{k}", features))
                features = torch.cat([features, new], 1)
            block = dense + 0.2 * conv(w, f"body.{n}.rdb{r}.conv5", features)
        y = y + 0.2 * block
    x = x + conv(w, "conv_body", y)
    for k in range(ups):
        x = lrelu(conv(w, f"conv_up{k + 1}", twice(x)))
    return conv(w, "conv_last", lrelu(conv(w, "conv_hr", x)))


def oldest(name):
    """BasicSR's name -> that of 2018: layers numbered with the activations and up-samplings between them."""
    tops = {
        "conv_first": "0",
        "conv_body": "1.sub.2",
        "conv_up1": "3",
        "conv_up2": "6",
        "conv_hr": "8",
        "conv_last": "10",
    }
    layer, kind = name.rsplit(".", 1)
    if match := re.match(r"body\.(\d+)\.rdb(\d)\.conv(\d)$", layer):
        return f"model.1.sub.{match[1]}.RDB{match[2]}.conv{match[3]}.0.{kind}"
    return f"model.{tops[layer]}.{kind}"


def middle(name):
    """BasicSR's name -> that of 2019."""
    name = re.sub(r"^body\.(\d+)\.rdb(\d)", r"RRDB_trunk.\1.RDB\2", name)
    for new, old in {"conv_body": "trunk_conv", "conv_up": "upconv", "conv_hr": "HRconv"}.items():
        name = re.sub("^" + new, old, name)
    return name


def net_of(content):
    found = recognise(content)
    return build_network(found.name, found.sizes, found.weights).eval().requires_grad_(False)


@pytest.mark.parametrize("unshuffle, scale", [(1, 4), (2, 2), (4, 1)])
def test_real_esrgan_computes_what_the_papers_describe(unshuffle, scale):
    w, x = rrdb_weights(unshuffle=unshuffle), torch.rand(2, 3, 8, 12)
    net = net_of({"params_ema": w, "params": rrdb_weights(unshuffle=unshuffle)})
    assert (net.scale, net.channels, net.multiple_of) == (scale, 3, unshuffle)
    torch.testing.assert_close(net(x), rrdb(w, x, unshuffle=unshuffle), **CLOSE)


@pytest.mark.parametrize("naming", [oldest, middle, lambda name: "module." + name])
def test_every_generation_of_esrgan_names_is_the_same_network(naming):
    w, x = rrdb_weights(), torch.rand(1, 3, 6, 6)
    assert torch.equal(net_of({naming(k): v for k, v in w.items()})(x), net_of(w)(x))


def test_oldest_names_of_another_scale():
    w = rrdb_weights(ups=1)
    tops = {"conv_first": "0", "conv_body": "1.sub.2", "conv_up1": "3", "conv_hr": "5", "conv_last": "7"}

    def named(name):
        layer, kind = name.rsplit(".", 1)
        return f"model.{tops[layer]}.{kind}" if layer in tops else oldest(name)

    net, x = net_of({named(k): v for k, v in w.items()}), torch.rand(1, 3, 6, 6)
    assert net.scale == 2
    torch.testing.assert_close(net(x), rrdb(w, x, ups=1), **CLOSE)


def test_full_real_esrgan_has_the_published_size():
    net = nets.ARCHITECTURES["rrdb"].build(3, 64, 32, 23, 2, 1)
    assert sum(p.numel() for p in net.parameters()) == 16_697_987  # as published for RRDBNet x4


def test_compact_network():
    w = Weights()
    for k, (a, b) in enumerate([(3, 8), (8, 8), (8, 8), (8, 12)]):
        w.conv(f"body.{2 * k}", a, b)
        if k < 3:
            w[f"body.{2 * k + 1}.weight"] = torch.rand(8)
    x = torch.rand(1, 3, 7, 5)
    y = x
    for k in range(4):
        y = conv(w, f"body.{2 * k}", y)
        if k < 3:
            slope = w[f"body.{2 * k + 1}.weight"].view(1, -1, 1, 1)
            y = lrelu(y, slope)
    torch.testing.assert_close(net_of({"params": w})(x), F.pixel_shuffle(y, 2) + twice(x), **CLOSE)


# --- EDSR


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edsr(scale):
    w, nf = Weights(), 6
    steps = {2: [2], 3: [3], 4: [2, 2]}[scale]
    w.conv("conv_first", 3, nf)
    for n in range(2):
        w.conv(f"body.{n}.conv1", nf, nf)
        w.conv(f"body.{n}.conv2", nf, nf)
    w.conv("conv_after_body", nf, nf)
    for k, step in enumerate(steps):
        w.conv(f"upsample.{2 * k}", nf, nf * step**2)
    w.conv("conv_last", nf, 3)
    x = torch.rand(1, 3, 6, 7)
    first = y = conv(w, "conv_first", 255 * (x - MEAN))
    for n in range(2):
        y = y + conv(w, f"body.{n}.conv2", conv(w, f"body.{n}.conv1", y).clamp_min(0))
    y = first + conv(w, "conv_after_body", y)
    for k, step in enumerate(steps):
        y = F.pixel_shuffle(conv(w, f"upsample.{2 * k}", y), step)
    net = net_of({"params": w})
    assert net.scale == scale
    torch.testing.assert_close(net(x), conv(w, "conv_last", y) / 255 + MEAN, **CLOSE)


def test_wide_edsr_scales_its_residuals():
    assert nets.ARCHITECTURES["edsr"].build(3, 256, 1, 2).body[0].factor == 0.1  # section 3 of the paper


# --- SwinIR

WIDTH, HEADS, WINDOW = 8, 2, 4


def connect(w, name, width, convolutions):
    if convolutions == 1:
        w.conv(name, width, width)
        return
    for k, (a, b, side) in enumerate([(width, width // 4, 3), (width // 4, width // 4, 1), (width // 4, width, 3)]):
        w.conv(f"{name}.{2 * k}", a, b, side)


def swinir_weights(kind, scale, convolutions=1, colours=3, depths=(2, 3)):
    w = Weights()
    w.conv("conv_first", colours, WIDTH)
    w.norm("patch_embed.norm", WIDTH)
    for g, depth in enumerate(depths):
        for k in range(depth):
            b = f"layers.{g}.residual_group.blocks.{k}."
            w.norm(b + "norm1", WIDTH)
            w.norm(b + "norm2", WIDTH)
            w[b + "attn.relative_position_bias_table"] = torch.randn((2 * WINDOW - 1) ** 2, HEADS)
            w[b + "attn.relative_position_index"] = torch.zeros(WINDOW**2, WINDOW**2).long()
            if k % 2:
                w[b + "attn_mask"] = torch.zeros(4, WINDOW**2, WINDOW**2)
            for name, a, c in [("attn.qkv", 1, 3), ("attn.proj", 1, 1), ("mlp.fc1", 1, 2), ("mlp.fc2", 2, 1)]:
                w.linear(b + name, a * WIDTH, c * WIDTH)
        connect(w, f"layers.{g}.conv", WIDTH, convolutions)
    w.norm("norm", WIDTH)
    connect(w, "conv_after_body", WIDTH, convolutions)
    if kind == "pixelshuffledirect":
        w.conv("upsample.0", WIDTH, colours * scale**2)
        return w
    w.conv("conv_before_upsample.0", WIDTH, 64)
    for k in range({2: 1, 4: 2, 3: 1}[scale]):
        if kind == "pixelshuffle":
            w.conv(f"upsample.{2 * k}", 64, 64 * (9 if scale == 3 else 4))
        else:
            w.conv(f"conv_up{k + 1}", 64, 64)
    if kind == "nearest+conv":
        w.conv("conv_hr", 64, 64)
    w.conv("conv_last", 64, colours)
    return w


def edges(length, shift):
    """Ends of the windows along one side; the first and last of a shifted partition are smaller."""
    return sorted({0, length, *range(shift, length, WINDOW)})


def attend(w, b, x, shift):
    """Attention inside every window of a partition, the windows one by one; x: (h, width, channels)."""
    out = torch.empty_like(x)
    ys, xs = edges(x.shape[0], shift), edges(x.shape[1], shift)
    for y0, y1 in zip(ys, ys[1:], strict=False):
        for x0, x1 in zip(xs, xs[1:], strict=False):
            tokens = x[y0:y1, x0:x1].reshape(-1, WIDTH)
            q, k, v = F.linear(tokens, w[b + "qkv.weight"], w[b + "qkv.bias"]).chunk(3, -1)
            at = torch.cartesian_prod(torch.arange(y1 - y0), torch.arange(x1 - x0))
            step = at[:, None] - at[None] + WINDOW - 1
            bias = w[b + "relative_position_bias_table"][step[..., 0] * (2 * WINDOW - 1) + step[..., 1]]
            size, parts = WIDTH // HEADS, []
            for h in range(HEADS):
                part = slice(h * size, (h + 1) * size)
                weight = (q[:, part] @ k[:, part].T / size**0.5 + bias[..., h]).softmax(-1)
                parts.append(weight @ v[:, part])
            answer = F.linear(torch.cat(parts, -1), w[b + "proj.weight"], w[b + "proj.bias"])
            out[y0:y1, x0:x1] = answer.view(y1 - y0, x1 - x0, WIDTH)
    return out


def normed(w, name, x):
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return x * w[name + ".weight"] + w[name + ".bias"]


def connected(w, name, x):
    """A connection on (h, width, channels)."""
    x = x.permute(2, 0, 1)[None]
    if name + ".weight" in w:
        x = conv(w, name, x)
    else:
        x = conv(w, name + ".4", lrelu(conv(w, name + ".2", lrelu(conv(w, name + ".0", x)))))
    return x[0].permute(1, 2, 0)


def swinir(w, x, kind, scale, depths=(2, 3)):
    """One image (1, colours, h, w) through SwinIR."""
    mean = MEAN if x.shape[1] == 3 else torch.zeros(1)
    first = conv(w, "conv_first", x - mean)[0].permute(1, 2, 0)
    y = normed(w, "patch_embed.norm", first)
    for g, depth in enumerate(depths):
        z = y
        for k in range(depth):
            b = f"layers.{g}.residual_group.blocks.{k}."
            z = z + attend(w, b + "attn.", normed(w, b + "norm1", z), WINDOW // 2 if k % 2 else 0)
            hidden = F.gelu(F.linear(normed(w, b + "norm2", z), w[b + "mlp.fc1.weight"], w[b + "mlp.fc1.bias"]))
            z = z + F.linear(hidden, w[b + "mlp.fc2.weight"], w[b + "mlp.fc2.bias"])
        y = y + connected(w, f"layers.{g}.conv", z)
    y = (first + connected(w, "conv_after_body", normed(w, "norm", y))).permute(2, 0, 1)[None]
    if kind == "pixelshuffledirect":
        return F.pixel_shuffle(conv(w, "upsample.0", y), scale) + mean
    y = lrelu(conv(w, "conv_before_upsample.0", y), 0.01)
    for k in range({2: 1, 4: 2, 3: 1}[scale]):
        if kind == "pixelshuffle":
            y = F.pixel_shuffle(conv(w, f"upsample.{2 * k}", y), 3 if scale == 3 else 2)
        else:
            y = lrelu(conv(w, f"conv_up{k + 1}", twice(y)))
    if kind == "nearest+conv":
        y = lrelu(conv(w, "conv_hr", y))
    return conv(w, "conv_last", y) + mean


@pytest.mark.parametrize(
    "kind, scale, convolutions, colours",
    [
        ("pixelshuffle", 4, 1, 3),
        ("pixelshuffle", 3, 1, 1),
        ("pixelshuffledirect", 2, 1, 3),
        ("nearest+conv", 4, 3, 3),
        ("nearest+conv", 2, 1, 3),
    ],
)
def test_swinir(kind, scale, convolutions, colours):
    w, x = swinir_weights(kind, scale, convolutions, colours), torch.rand(2, colours, 8, 12)
    net = net_of({"params": w})
    assert (net.scale, net.multiple_of) == (scale, WINDOW)
    expected = torch.cat([swinir(w, image, kind, scale) for image in x.split(1)])
    torch.testing.assert_close(net(x), expected, **CLOSE)


def test_middle_sized_swinir_has_the_published_size():
    sizes = {"width": 180, "depths": [6] * 6, "heads": 6, "window": 8, "hidden": 360}
    net = nets.ARCHITECTURES["swinir"].build(3, **sizes, convolutions=1, upsampler_="pixelshuffle", scale=4)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 11.9  # table 2 of the paper


# --- what does not fit


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda w: w.pop("conv_hr.bias"), "1 missing: conv_hr.bias"),
        (lambda w: w.update({"extra.weight": torch.zeros(3)}), "1 unexpected: extra.weight"),
        (
            lambda w: w.update({"conv_hr.weight": torch.zeros(8, 4, 3, 3)}),
            r"1 of another shape: conv_hr.weight \(8, 4, 3, 3\) instead of \(8, 8, 3, 3\)",
        ),
    ],
)
def test_a_misfit_says_which_keys_and_shapes(change, words):
    w = rrdb_weights()
    change(w)
    with pytest.raises(MisfitError, match="looks like ESRGAN .* does not fit; " + words):
        recognise(w)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, torch.zeros(2)])
def test_what_holds_no_tensors_by_name_is_said(content):
    with pytest.raises(MisfitError, match="no tensors by name"):
        recognise(content)


def test_unknown_architecture_names_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(MisfitError, match=r"begins with odd\.weight; 'pip install spandrel'"):
        recognise({"odd.weight": torch.zeros(2)})


class Standing(torch.nn.Module):
    """A network that only the library knows."""

    def __init__(self, weights):
        super().__init__()
        self.odd = torch.nn.Conv2d(3, 3, 1)
        self.load_state_dict(weights)

    def forward(self, x):
        return twice(self.odd(x))


@pytest.fixture
def spandrel(monkeypatch):
    """A stand-in for the library: what this package uses of it, for one network."""

    def load_from_state_dict(self, weights):
        if "odd.weight" not in weights:
            raise ValueError("unsupported")
        size = types.SimpleNamespace(minimum=0, multiple_of=4, square=False)
        found = {"model": Standing(weights), "scale": 2, "input_channels": 3, "output_channels": 3}
        return types.SimpleNamespace(**found, size_requirements=size)

    loader = type("ModelLoader", (), {"load_from_state_dict": load_from_state_dict})
    monkeypatch.setitem(sys.modules, "spandrel", types.SimpleNamespace(ModelLoader=loader))


def odd_weights():
    return {"odd.weight": torch.eye(3)[..., None, None].clone(), "odd.bias": torch.zeros(3)}


def test_library_takes_what_is_not_known_here(spandrel, tmp_path, monkeypatch):
    found = recognise(odd_weights())
    prior = PublishedPrior(PublishedConfig(2, found.name), found.weights)
    assert prior.stages[0].multiple_of == 4 and not prior.stages[0].tile_exact
    save(Model(prior, card=CARD), tmp_path / "m.safetensors")
    again = load(str(tmp_path / "m.safetensors")).prior
    x = torch.rand(1, 1, 8, 8)
    assert torch.equal(again.stages[0](x), prior.stages[0](x))
    with pytest.raises(MisfitError, match=r"known here or to spandrel \(unsupported\)"):
        recognise({"even.weight": torch.zeros(2)})
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(InputError, match="--model: .*pip install spandrel"):
        load(str(tmp_path / "m.safetensors"))


def test_files_that_are_not_weights(tmp_path):
    class Code:
        def __reduce__(self):
            return (print, ("run",))

    (tmp_path / "code.pth").write_bytes(pickle.dumps(Code()))
    torch.save({"params": Code()}, tmp_path / "zip.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 40)
    for name in ("code.pth", "zip.pth"):
        with pytest.raises(InputError, match="--prior: .*more than tensors"):
            refiner_training.prior_scale(str(tmp_path / name))
    for name in ("text.pth", "empty.pth", "bad.safetensors"):
        with pytest.raises(InputError, match=f"{name}"):
            refiner_training.prior_scale(str(tmp_path / name))


# --- as a prior

CARD = {"name": "m", "kind": "astro", "scale": 2, "trained": {}}
RECIPE = """
[data]
patch = 12
scene_px = 64
pool = 2
sigma = [0.4, 0.7]
focus = [0.4, 0.7]
[loop]
batch = 4
warmup = 8
interval = 1e9
bf16 = false
"""


def gaussian(sigma):
    at = np.arange(-5, 6)
    g = np.exp(-0.5 * (at / sigma) ** 2)
    return np.outer(g, g) / g.sum() ** 2


def frame(side=24):
    torch.manual_seed(3)
    operator = Operator((side, side + 4), 2, gaussian(1.0))
    truth = torch.zeros(1, 1, 2 * side, 2 * side + 8)
    truth[..., 11, 17], truth[..., 30, 22] = 4000.0, 300.0
    clean = operator.apply(truth)
    noise = 1 + 0.01 * clean
    return Data(clean + noise.sqrt() * torch.randn(clean.shape), noise, torch.ones_like(clean), operator)


def prior_of(w, **changes):
    found = recognise(w)
    return PublishedPrior(PublishedConfig(net_of(w).scale, found.name, sizes=found.sizes, **changes), found.weights)


@pytest.mark.parametrize("make, limit", [(linear, 1e-5), (asinh, 1e-4)])
def test_stretches_go_and_come_back(make, limit):
    y = 10 ** torch.empty(40, 40).uniform_(-1, 4) - 3
    unit = make(y.numpy(), np.zeros((40, 40), bool), np.ones((40, 40)))
    u = unit.forward(y)
    torch.testing.assert_close(unit.inverse(u), y, rtol=limit, atol=limit)  # float32, through sinh
    if make is asinh:
        assert abs(float(u.min())) < 1e-6 and abs(float(u.max()) - 1) < 1e-6  # float32


def repeating():
    """A compact network whose last convolution is zero: it repeats its input."""
    w = Weights()
    w.conv("body.0", 3, 4)
    w["body.1.weight"] = torch.rand(4)
    w.conv("body.2", 4, 12)
    w["body.2.weight"].zero_()
    w["body.2.bias"].zero_()
    return w


def test_repeating_network_gives_the_plane_back():
    data = frame()
    for stretch in ("linear", "asinh"):
        guess = prior_of(repeating(), stretch=stretch)(data, torch.zeros(1, 4))[-1].guess
        torch.testing.assert_close(4 * guess, twice(data.y), rtol=1e-4, atol=1e-3)  # float32 through sinh


def test_the_physics_holds_the_image_to_the_data():
    estimate = prior_of(repeating())(data := frame(), torch.zeros(1, 4), iterations=40)[-1]
    assert float(data.chi2(estimate.guess)) > 10  # blurred twice
    assert float(data.chi2(estimate.x)) < 1.5


def test_masked_values_do_not_matter():
    prior, data = prior_of(rrdb_weights(unshuffle=2)), frame()
    valid = torch.ones_like(data.y)
    valid[..., 5:8, 6:9] = 0
    outputs = [
        prior(Data(torch.where(valid > 0, data.y, v), data.noise, valid, data.operator), torch.zeros(1, 4))[-1].x
        for v in (torch.tensor(0.0), torch.tensor(1e9))
    ]
    assert torch.isfinite(outputs[0]).all() and torch.equal(*outputs)


@pytest.mark.parametrize("weights", [lambda: rrdb_weights(1), lambda: swinir_weights("pixelshuffledirect", 2)])
def test_tiles_agree_over_the_stated_receptive_field(weights):
    w = weights()
    net = Planes(net_of(w), halo=None)
    assert net.tile_exact and net.receptive_px < 64
    x = torch.rand(1, 1, 37, 150)
    plan = tiling.plan(x.shape[-2:], 16, net.receptive_px, net.multiple_of)
    assert len(plan) > 10
    torch.testing.assert_close(tiling.run(net, x, plan), net(x), **CLOSE)


def test_deep_networks_do_not_claim_that_tiles_agree():
    with torch.device("meta"):
        net = nets.ARCHITECTURES["rrdb"].build(3, 64, 32, 23, 2, 1)
    assert net.receptive_px == 23 * 15 + 2 + 2
    assert (Planes(net).tile_exact, Planes(net).receptive_px) == (False, 64)
    assert Planes(net, halo=349).tile_exact


def test_upscale_says_that_tiles_of_a_deep_network_differ():
    shallow = Model(prior_of(rrdb_weights(1, unshuffle=2)))
    deep = Model(prior_of(rrdb_weights(1, unshuffle=2), halo=3))
    assert not warn_networks(shallow)
    assert warn_networks(deep).lines[0].startswith("WARNING tiles: rrdb sees beyond a tile")


def test_factor_is_the_scale_of_the_errors():
    errors = 3 * np.random.default_rng(0).standard_normal(100_000)
    errors[:50] = 1e6  # cut
    factor = importing.most_likely_factor(np.abs(errors))
    assert abs(factor / 3 - 1) < 0.07  # the grid's step, and what the outliers leave


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return str(tmp_path / "recipe.toml")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_refiner_trains_on_a_published_network(recipe, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(refiner_training, "validation", lambda *_: lambda refiner: {"held_out": 0.0})
    monkeypatch.setattr(importing, "PAIRS", 8)
    torch.manual_seed(2)
    w, path, output = rrdb_weights(unshuffle=2), tmp_path / f"net{suffix}", tmp_path / "model.safetensors"
    save_file(dict(w), path) if suffix == ".safetensors" else torch.save({"params_ema": dict(w)}, path)
    said = []
    small = {"scale": 2, "recipe": recipe, "preset": "tiny", "images": 8, "calibrate": False}
    refiner_training.train(TrainOptions(str(output), prior=str(path), **small), said.append)
    assert any("not flux-true" in line for line in said)
    model = load(str(output))
    assert model.card["prior"]["kind"] == "published" and model.card["trained"]["prior"]["published"] == path.name
    assert model.prior.config.factor > 0 and json.dumps(model.card)
    for name, value in w.items():
        assert torch.equal(model.prior.stages[0].net.state_dict()[name], value)
    data = frame()
    pixels, variance = data.y[0, 0].numpy(), data.noise[0, 0].numpy()
    outputs = [
        restore(Observation.of_arrays(pixels, variance, 2, gaussian(1.0)), model, Settings(samples=2, steps=2, tile=t))
        for t in (0, 0, 16)
    ]
    assert np.array_equal(outputs[0].mean, outputs[1].mean) and np.isfinite(outputs[0].mean).all()
    np.testing.assert_allclose(outputs[2].mean, outputs[0].mean, rtol=1e-3, atol=1e-2)  # float32 of peaks of 1e3
    assert abs(outputs[0].flux_ratio - 1) < 0.02  # the closing of the flux


def test_another_scale_is_refused_in_one_line(recipe, tmp_path):
    torch.save(dict(rrdb_weights()), tmp_path / "x4.pth")
    options = TrainOptions(str(tmp_path / "m.safetensors"), prior=str(tmp_path / "x4.pth"), scale=2, recipe=recipe)
    with pytest.raises(UsageError, match=r"--scale 2: the prior .*x4\.pth has scale 4"):
        refiner_training.load_base_model(options, lambda line: None)
    torch.save(dict(rrdb_weights(unshuffle=4)), tmp_path / "x1.pth")
    with pytest.raises(InputError, match=r"x1\.pth holds a network of scale x1"):
        refiner_training.prior_scale(str(tmp_path / "x1.pth"))


@pytest.mark.parametrize("line", ['stretch = "log"', "halo = -1", 'pmin = "a"'])
def test_bad_settings_of_the_prior_are_refused(tmp_path, line):
    (tmp_path / "r.toml").write_text("[prior]\n" + line)
    with pytest.raises(UsageError, match=r"--recipe: \[prior\]"):
        importing.settings_of(str(tmp_path / "r.toml"))


def test_settings_of_the_prior_reach_the_network(tmp_path):
    (tmp_path / "r.toml").write_text('[prior]\nstretch = "asinh"\nsoftening = 5\nhalo = 9')
    settings = importing.settings_of(str(tmp_path / "r.toml"))
    prior = prior_of(rrdb_weights(), **settings)
    unit = prior.units(torch.rand(1, 1, 9, 9), frame_like(9))[0]
    assert isinstance(unit, Unit) and unit.stretch.parameters["softening"] == 5
    assert prior.receptive_px == 9


def frame_like(side):
    one = torch.ones(1, 1, side, side)
    return Data(one, one, one, Operator((side, side), 4))


def test_recipe_of_import_is_the_networks_scale():
    found = importing.measure_error(
        prior_of(rrdb_weights(unshuffle=2)), DataRecipe(scale=2, patch=12, scene_px=64, pool=2), 0, 4
    )
    assert all(np.isfinite(found))
