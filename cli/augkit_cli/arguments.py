"""Flags that several commands have, and what their texts mean."""

from __future__ import annotations

import click

STORE = click.option(
    "--store", metavar="PATH", help="The store: a folder, or one .h5 file. Default: the one here."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
SPLIT = click.option(
    "--split", metavar="A/B/C", help="Training/validation/test in %, or given: as the data came."
)
MADE_FOR = click.option(
    "--split", metavar="NAME", help="given: train on the training part that the data came with."
)
FOLDS = click.option(
    "--folds", type=int, metavar="K", help="K-fold cross-validation: 2, 4, 5, 10, 20."
)
DATASETS = click.option(
    "--datasets", metavar="A,B", help="Only images of these data sets. Default: all."
)
TEST_ON = click.option(
    "--test-on", metavar="DATASET", help="Train on all other data sets, test on this."
)


def names(text: str | None) -> list[str]:
    """Return the words of a list with commas."""
    return [word.strip() for word in text.split(",")] if text else []
