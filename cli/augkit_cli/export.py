"""The command `augkit export`."""

from __future__ import annotations

from typing import Any

import click

from augkit_cli.output import progress


@click.command()
@click.argument("folder")
@click.option(
    "--format",
    type=click.Choice(["imagefolder", "huggingface", "webdataset", "npz"]),
    default="imagefolder",
    show_default=True,
    help="Who is to read it; see docs/export.md.",
)
@click.option(
    "--store", metavar="PATH", help="The store: a folder, or one .h5 file. Default: the one here."
)
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
@click.option("--split", metavar="A/B/C", help="Training/validation/test in %, such as 70/15/15.")
@click.option("--folds", type=int, metavar="K", help="K-fold cross-validation: 2, 4, 5, 10, 20.")
@click.option("--fold", type=int, metavar="N", help="Which of the folds, counted from 1.")
@click.option("--datasets", metavar="A,B", help="Only images of these data sets. Default: all.")
@click.option("--test-on", metavar="DATASET", help="Train on all other data sets, test on this.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
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
            arms=_names(arms),
            parts=_names(parts),
            datasets=_names(datasets),
            progress=bar,
            **flags,
        )
    click.echo(result.to_json() if as_json else str(result))


def _names(text: str | None) -> list[str]:
    """Return the words of a list with commas."""
    return [word.strip() for word in text.split(",")] if text else []
