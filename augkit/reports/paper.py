"""Table II of the paper, and what we have of the same networks on the same data sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from augkit.reports.exports import Cell, estimate, interval

FORMS = {"real": "none", "traditional": "traditional", "dagan": "DAGAN", "all": "both"}
"""Our arms, and what the paper calls them."""

NETWORKS = {
    "alexnet": "AlexNet",
    "vgg16": "VGG16",
    "inception": "Inception",
    "resnet": "ResNet",
    "nasnet": "NASNet",
}

TABLE_2: dict[tuple[str, str], tuple[int | str, ...]] = {
    ("BUSI", "AlexNet"): (58, 62, 73, 78),
    ("BUSI", "VGG16"): (70, 74, 84, 88),
    ("BUSI", "Inception"): (68, 73, 82, 85),
    ("BUSI", "ResNet"): (79, 82, 89, 93),
    ("BUSI", "NASNet"): (83, 85, 91, 94),
    ("B", "AlexNet"): ("over-fitting", 56, 75, 80),
    ("B", "VGG16"): (68, 72, 80, 82),
    ("B", "Inception"): (65, 70, 77, 80),
    ("B", "ResNet"): (75, 79, 86, 90),
    ("B", "NASNet"): (79, 82, 90, 92),
    ("BUSI + B", "AlexNet"): (60, 65, 82, 84),
    ("BUSI + B", "VGG16"): (72, 75, 86, 88),
    ("BUSI + B", "Inception"): (70, 73, 84, 87),
    ("BUSI + B", "ResNet"): (76, 79, 88, 92),
    ("BUSI + B", "NASNet"): (84, 88, 96, 99),
}
"""Accuracy in %, in the order of `FORMS`: Al-Dhabyani et al. 2019, Table II."""


def site_of(dataset: str) -> str | None:
    """Return which of the paper's data sets a name means, or None.

    BrEaST stands for the paper's second site, data set B (UDIAT), which may not be redistributed.
    """
    name = dataset.lower().strip()
    sites = {_one_site(part.strip()) for part in re.split(r"\+|,| and ", name)}
    if name == "both" or sites == {"BUSI", "B"}:
        return "BUSI + B"
    return sites.pop() if len(sites) == 1 else None


def _one_site(name: str) -> str | None:
    if "busi" in name:
        return "BUSI"
    second = name in ("b", "second site", "breast")
    return "B" if second or "udiat" in name or "breast-lesions" in name else None


def table_2(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return the rows of Table II with a data set or network of ours, ours below them.

    Empty where nothing of the paper was evaluated here.
    """
    ours: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.arms:
            network = NETWORKS.get(cell.classifier, cell.classifier)
            ours.setdefault((site_of(cell.dataset) or cell.dataset, network), []).append(cell)
    there = {site for site, _ in TABLE_2}
    sites = {site for site, _ in ours}
    networks = {network for site, network in ours if site not in there}
    wanted = [key for key in TABLE_2 if key[0] in sites or key[1] in networks]
    more = [key for key in ours if key not in TABLE_2]
    return [_beside(key, ours.get(key, [])) for key in [*wanted, *more]] if wanted else []


def _beside(key: tuple[str, str], cells: Sequence[Cell]) -> dict[str, Any]:
    """Return what the paper and we have of a network on a data set."""
    lines = [("paper", [str(value) for value in TABLE_2[key]])] if key in TABLE_2 else []
    lines += [(_source(cell, key[0]), [_percent(cell, arm) for arm in FORMS]) for cell in cells]
    return {"site": key[0], "network": key[1], "lines": lines}


def _source(cell: Cell, site: str) -> str:
    """Return `here`, with our name of the data set where it is another than the paper's."""
    return "here" if cell.dataset == site else f"here: {cell.dataset}"


def _percent(cell: Cell, arm: str) -> str:
    found = next((a for a in cell.all_arms if a["name"] == arm), {})
    return interval(estimate(found, "accuracy"), scale=100, form=".1f")
