"""The commands `augkit plugin new` and `augkit plugin check`."""

from __future__ import annotations

import sys

import click

from augkit_cli.arguments import JSON
from augkit_cli.output import plain, progress


@click.group()
def plugin() -> None:
    """Write a plugin of your own, and check it."""


@plugin.command()
@click.argument("name")
@click.option("--classifier", is_flag=True, help="A classifier. Default: an augmenter.")
@click.option(
    "--folder", metavar="DIR", help="Where to write; must not exist. Default: augkit-NAME."
)
def new(name: str, classifier: bool, folder: str | None) -> None:
    """Write a package with the plugin NAME, its tests and a README.

    It works at once: change it step by step.
    """
    from augkit import scaffolding

    click.echo(str(scaffolding.new(name, "classifier" if classifier else "augmenter", folder)))


@plugin.command()
@click.argument("package")
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    default=60,
    show_default=True,
    help="The most time for one check.",
)
@JSON
def check(package: str, timeout: float, as_json: bool) -> None:
    """Hold the plugins of PACKAGE against the contract.

    PACKAGE is the name of an installed package, or a folder with a pyproject.toml, installed or
    not. Ends with 1 if a check fails.
    """
    from augkit import examination

    with progress() as bar:
        found = examination.check(package, timeout=timeout, progress=bar)
    click.echo(found.to_json() if as_json else plain(str(found)))
    if not found.sound:
        sys.exit(1)
