"""The contract that every classifier keeps, whatever its architecture."""

import pytest
from augkit_classifiers import register_classifiers

from augkit.interfaces import Context
from augkit.registry import registry
from augkit.testing import check_classifier, check_learning, toy_samples

OFFERED = {cls.name: cls for cls in register_classifiers()}

# What a quick run takes: networks from scratch at the size of toy images, in small batches.
SMALL = {"weights": "none", "batch": 5}
QUICK = {
    "resnet": {"depth": "18", **SMALL},
    "timm": {"model": "resnet10t", **SMALL},
    "efficientnet-lite0": {"input_size": "64x64", "batch": 5},
    "linear": {},
    "texture": {},
    "svm": {},
}
HEAVY = {
    "alexnet": {"batch": 5},
    "vgg16": SMALL,
    "inception": SMALL,
    "nasnet": SMALL | {"input_size": "64x64"},
    "efficientnet-lite1": {"input_size": "64x64", "batch": 5},
    "efficientnet-lite2": {"input_size": "64x64", "batch": 5},
}
AT_ONCE = {"linear", "texture"}
"""Those that are tried in the quick suite too."""


def case(name, *what, id=None):
    """Return a parameter set, marked as slow unless it is of those that are tried at once."""
    return pytest.param(
        name, *what, id=id or name, marks=[] if (id or name) in AT_ONCE else pytest.mark.slow
    )


CASES = [
    *(case(name, o) for name, o in QUICK.items()),
    case("alexnet", {"variant": "paper", "batch": 5}, id="alexnet-paper"),
    case("efficientnet-lite0", {"train": "all", **QUICK["efficientnet-lite0"]}, id="whole"),
    *(case(name, o) for name, o in HEAVY.items()),
]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setenv("AUGKIT_OFFLINE", "1")


def test_every_classifier_is_held_against_the_contract():
    assert set(OFFERED) == {*QUICK, *HEAVY}
    ours = {p.name for p in registry().of_kind("classifier") if p.distribution == "augkit"}
    assert ours == set(OFFERED)


@pytest.mark.seconds
@pytest.mark.parametrize(("name", "options"), CASES)
def test_it_keeps_the_contract(name, options):
    check_classifier(OFFERED[name], **options)


LEARNING = {
    "efficientnet-lite0": ({"input_size": "96x96", "batch": 8}, 100),
    "linear": ({}, None),
    "texture": ({}, None),
    "svm": ({}, None),
}
LEARNING_SLOWLY = {
    "resnet": ({"depth": "18", "weights": "none", "batch": 8}, 40),
    "timm": ({"model": "resnet10t", "weights": "none", "batch": 8}, 80),
    "alexnet": ({"batch": 8, "learning_rate": 3e-4}, 30),
    "vgg16": ({"weights": "none", "batch": 8, "learning_rate": 1e-4}, 25),
    "inception": ({"weights": "none", "batch": 8}, 50),
    "nasnet": ({"weights": "none", "batch": 8, "input_size": "64x64"}, 20),
    "efficientnet-lite1": ({"input_size": "96x96", "batch": 8}, 100),
    "efficientnet-lite2": ({"input_size": "96x96", "batch": 8}, 100),
}


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        *(case(name, *how) for name, how in LEARNING.items()),
        case("alexnet", {"variant": "paper", "batch": 8}, 60, id="alexnet-paper"),
        *(case(name, *how) for name, how in LEARNING_SLOWLY.items()),
    ],
)
def test_it_learns_eight_images_by_heart_and_nothing_from_shuffled_labels(name, options, steps):
    check_learning(OFFERED[name], steps, **options)


@pytest.mark.parametrize("name", [n for n in OFFERED if OFFERED[n].family == "network"])
def test_the_listing_tells_the_truth_about_size(name):
    cls = OFFERED[name]
    about = cls.about()
    if not about.parameters:
        pytest.skip("stands for many networks")
    import torch

    with torch.device("meta"):
        network = cls(input_size=about.input_size).build(1000, 3)
    assert sum(p.numel() for p in network.parameters()) == about.parameters


def test_a_fit_without_settling_is_the_same_as_one_with(monkeypatch):
    cls, context = OFFERED["efficientnet-lite0"], Context(3, ("a", "b"), max_steps=3)
    train = toy_samples(4, classes=("benign", "normal"))
    raw = cls(input_size="64x64")
    settled = raw.settle(train.shape, "cpu")
    raw.fit(train, train, context)
    settled.fit(train, train, context)
    assert (raw.predict_proba(train) == settled.predict_proba(train)).all()
