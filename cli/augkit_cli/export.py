"""The command `augkit export`."""

from __future__ import annotations

from typing import Any

import click

from augkit_cli.arguments import DATASETS, FOLDS, JSON, SPLIT, STORE, TEST_ON, names
from augkit_cli.output import plain, progress


@click.command()
@click.argument("folder")
@click.option(
    "--format",
    type=click.Choice(["imagefolder", "huggingface", "webdataset", "npz"]),
    default="imagefolder",
    show_default=True,
    help="Who is to read it; see docs/export.md.",
)
@STORE
@click.option(
    "--arms",
    metavar="A,B",
    default="real",
    show_default=True,
    help="Whose rows: real, traditional, all, or runs; real images are always among them.",
)
@click.option(
    "--parts",
    metavar="A,B",
    default="train",
    show_default=True,
    help="train, validation, test: each into a place of its own.",
)
@click.option("--mix-parts", is_flag=True, help="Write all parts into one place.")
@click.option("--masks", is_flag=True, help="Write the masks as well.")
@SPLIT
@FOLDS
@click.option("--fold", type=int, metavar="N", help="Which of the folds, counted from 1.")
@DATASETS
@TEST_ON
@JSON
def export(
    folder: str,
    store: str | None,
    arms: str,
    parts: str,
    datasets: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Write images into a new FOLDER, as other libraries read them.

    Beside them stands what each comes from. Runs give the rows that may be trained on, to the
    training part alone.
    """
    import augkit as ak

    with progress() as bar:
        result = ak.export(
            store,
            folder,
            arms=names(arms),
            parts=names(parts),
            datasets=names(datasets),
            progress=bar,
            **flags,
        )
    click.echo(result.to_json() if as_json else plain(str(result)))
