"""The command `augkit`. Every command is a thin face of one function of the package `augkit`."""

from __future__ import annotations

import errno
import io
import logging
import sys
from collections.abc import Sequence
from typing import Any

import click

from augkit import __version__
from augkit.errors import AugkitError, OptionError
from augkit.tables import counted
from augkit_cli.arguments import DATASETS, FOLDS, JSON, MADE_FOR, SPLIT, STORE, TEST_ON, names
from augkit_cli.export import export
from augkit_cli.output import configure_logging, plain, progress
from augkit_cli.plugin import plugin

_WORKERS = click.option(
    "--workers", type=int, metavar="N", help="Workers at once. Default: all usable cores."
)
_START = click.option(
    "--start-method",
    type=click.Choice(["threads", "fork", "spawn", "forkserver"]),
    default="threads",
    show_default=True,
    help="How workers are started. Results are the same.",
)
_OPTIONS = click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the plugin, also PLUGIN.KEY=VALUE; augkit plugins NAME lists them.",
)


class _Commands(click.Group):
    """Lists the commands in the order in which a user meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="augkit")
@click.option("--verbose", is_flag=True, help="Show the traceback of an error.")
def augkit(verbose: bool) -> None:
    """Does this augmentation really help my classifier?

    Bring images into a store, augment them, evaluate a classifier on real images that nothing
    was trained on or derived from:

    \b
      augkit ingest FOLDER
      augkit augment --plugin flip --plugin zoom
      augkit evaluate --classifier linear
    """  # noqa: D301


@augkit.command()
@click.argument("source")
@STORE
@click.option("--layout", metavar="NAME", help="How SOURCE lies there, if the guess is wrong.")
@click.option("--dataset", metavar="NAME", help="Name of the data set. Default: the folder's.")
@click.option("--size", metavar="WxH", help="Width x height of all images of a new store.")
@click.option(
    "--fit",
    type=click.Choice(["stretch", "pad"]),
    default="stretch",
    show_default=True,
    help="How an image fills that size.",
)
@click.option(
    "--colour/--grey", default=None, help="Channels of a new store. Default: grey for files."
)
@click.option("--window", metavar="LOW,HIGH", help="Of deep images; also bits, percentile.")
@click.option("--keys", type=click.Choice(["path", "hash"]), help="hash: pseudonyms as names.")
@click.option("--group-by", type=click.Choice(["patient"]), help="DICOM: group by PatientID.")
@click.option("--secret", metavar="FILE", help="Makes pseudonyms. Default: beside the store.")
@click.option(
    "--conflicts",
    type=click.Choice(["drop", "keep"]),
    help="Groups whose images carry different classes: leave them out (default), or keep them.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out files that cannot be read.")
@click.option(
    "--no-find-relatives",
    "find_relatives",
    flag_value=False,
    default=True,
    help="Do not look for near-duplicates; trust the groups of the manifest.",
)
@click.option("--review", metavar="FILE.html", help="Write borderline pairs, to decide by hand.")
@click.option("--decisions", metavar="FILE.csv", help="What was decided about these pairs.")
@_WORKERS
@_START
@JSON
def ingest(source: str, colour: bool | None, as_json: bool, **flags: Any) -> None:
    """Bring real images into a store, which is made if need be.

    SOURCE is a folder with a subfolder for each class, a CSV manifest with the columns image and
    class, NPZ, Hugging Face, WebDataset or another store; images may be DICOM. Near-duplicates are
    found and kept together, in training or in test, never in both.
    """
    import augkit as ak

    channels = None if colour is None else 3 if colour else 1
    with progress() as bar:
        report = ak.ingest(source, channels=channels, progress=bar, **flags)
    _print(report, as_json)


_BUDGET = click.option(
    "--budget", metavar="TIME", help="The most time, such as 30m: training then stops early."
)
_DEVICE = click.option(
    "--device", metavar="NAME", help="Where to train: cuda, mps, cpu. Default: the fastest here."
)
_WEIGHTS = click.option(
    "--weights", metavar="FOLDER", help="Take this model, fitted elsewhere on the same images."
)


@augkit.command()
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    required=True,
    metavar="NAME",
    help="An augmenter, see augkit plugins; a+b chains two. Repeat it for more runs.",
)
@STORE
@_OPTIONS
@click.option("--n", type=int, metavar="N", help="New images for each class.")
@click.option("--total", type=int, metavar="N", help="New images in all.")
@click.option(
    "--seed", type=int, metavar="N", default=0, show_default=True, help="Governs what is drawn."
)
@click.option("--run", metavar="NAME", help="A name for the run; only with one --plugin.")
@MADE_FOR
@_BUDGET
@_DEVICE
@_WEIGHTS
@click.option(
    "--reject-copies", is_flag=True, help="Draw generated images again that copy a training image."
)
@click.option(
    "--time-limit",
    type=float,
    metavar="SECONDS",
    default=600,
    show_default=True,
    help="The most time of a plugin for a block of images.",
)
@_WORKERS
@_START
@JSON
def augment(
    plugins: tuple[str, ...],
    store: str | None,
    options: tuple[str, ...],
    run: str | None,
    weights: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Make new images from the training part.

    Each --plugin makes one run. Without --n or --total: one new image for each training image.
    The same line again does nothing; another seed or option makes another run. A plugin that
    learns is trained first, once; its model is kept and used again.
    """
    import augkit as ak

    if len(plugins) > 1 and (run is not None or weights is not None):
        flag = "--run" if run is not None else "--weights"
        raise OptionError(f"{flag} is for one run; give it with one --plugin")
    given = _options(options)
    with progress() as bar:
        if len(plugins) == 1:
            flags |= {"run": run, "weights": weights}
            results = [ak.augment(store, plugins[0], given, progress=bar, **flags)]
        else:
            results = ak.augment_all(store, plugins, given, progress=bar, **flags)
    if as_json:
        click.echo("[" + ", ".join(r.to_json() for r in results) + "]")
    else:
        click.echo(plain("\n".join(map(str, results))))


@augkit.command()
@click.option("--plugin", required=True, metavar="NAME", help="An augmenter that learns.")
@STORE
@_OPTIONS
@MADE_FOR
@_BUDGET
@_DEVICE
@_WEIGHTS
@JSON
def fit(
    plugin: str, store: str | None, options: tuple[str, ...], as_json: bool, **flags: Any
) -> None:
    """Train an augmenter that learns, without making images.

    The model is kept in the store. A partial one is trained further, from its checkpoint.
    """
    import augkit as ak

    given = _options(options)
    with progress() as bar:
        result = ak.fit(store, plugin, given, progress=bar, **flags)
    _print(result, as_json)


@augkit.command()
@click.option(
    "--classifier", required=True, metavar="NAME", help="What is trained, see augkit plugins."
)
@STORE
@_OPTIONS
@click.option("--arms", metavar="A,B", help="What to compare: real, traditional, all, or runs.")
@SPLIT
@FOLDS
@click.option(
    "--repeats",
    type=int,
    metavar="N",
    default=1,
    show_default=True,
    help="How often to do it all, with the folds dealt anew.",
)
@click.option("--seeds", type=int, metavar="N", help="Fits on each partition. Default: 5.")
@click.option(
    "--primary",
    metavar="METRIC",
    default="balanced_accuracy",
    show_default=True,
    help="The metric that verdicts are about.",
)
@click.option("--positive", metavar="CLASS", help="Show sensitivity and specificity of this class.")
@DATASETS
@TEST_ON
@click.option(
    "--split-by",
    type=click.Choice(["group", "image"]),
    default="group",
    show_default=True,
    help="image: leaky, to see how far that flatters.",
)
@click.option("--refit", is_flag=True, help="Fit generators anew for each partition.")
@click.option("--budget", metavar="TIME", help="The most time for each of these, such as 30m.")
@click.option(
    "--real-share",
    type=float,
    metavar="X",
    default=0.5,
    show_default=True,
    help="Real images in each batch of an augmented arm, where a whole network is trained.",
)
@click.option(
    "--protocol",
    type=click.Choice(["augkit", "paper"]),
    default="augkit",
    show_default=True,
    help="paper: one split, equal epochs for all arms, no class weights.",
)
@click.option("--full", is_flag=True, help="Do all of it, also if a CPU needs over half an hour.")
@_DEVICE
@JSON
def evaluate(
    classifier: str,
    store: str | None,
    options: tuple[str, ...],
    arms: str | None,
    datasets: str | None,
    protocol: str,
    as_json: bool,
    **flags: Any,
) -> None:
    """Say whether augmentation helps a classifier.

    It is tested on real images only, after training on real images, on these and the runs, and on
    real images repeated to the same class counts. What is computed is kept, and the same line goes
    on where it was interrupted.
    """
    import augkit as ak

    given = _options(options)
    with progress() as bar:
        result = ak.evaluate(
            store,
            classifier,
            given,
            arms=names(arms) or None,
            datasets=names(datasets),
            paper=protocol == "paper",
            progress=bar,
            **flags,
        )
    _print(result, as_json)


@augkit.command()
@click.argument("file", required=False)
@click.option("--preset", type=click.Choice(["paper"]), help="paper: Table II, instead of a file.")
@STORE
@click.option("--dry-run", is_flag=True, help="Say what there is to do, and how long it takes.")
@click.option("--task", type=int, metavar="K", help="Do task K alone, counted from 0.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where tasks run: processes of this machine, or a Ray cluster.",
)
@click.option("--workers", type=int, metavar="N", help="Tasks at once. Default: one a core or GPU.")
@click.option("--timeout", type=float, metavar="SECONDS", help="The most time for a task.")
@click.option(
    "--gpus-per-task", type=float, default=0.0, metavar="X", help="Of Ray: GPUs, or a part of one."
)
@click.option("--address", metavar="HOST:PORT", help="Of Ray: a cluster. Default: this machine.")
@JSON
def study(
    file: str | None,
    preset: str | None,
    store: str | None,
    dry_run: bool,
    task: int | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Evaluate data sets, classifiers and arms together, as FILE says.

    FILE is YAML: classifiers, and perhaps datasets, arms, split or folds, seeds, primary. What is
    done is kept; the same line computes only what is missing. Generators are fitted anew for each
    partition. One correction covers all verdicts.
    """
    import augkit as ak

    if (file is None) == (preset is None):
        both = ", not both" if file else ""
        raise OptionError(f"name a YAML file, or give --preset paper{both}")
    asked = preset or str(file)
    found: Any
    with progress() as bar:
        if dry_run:
            found = ak.plan(asked, store)
        elif task is not None:
            found = ak.run_task(asked, task, store)
        else:
            found = ak.study(asked, store, progress=bar, **flags)
    _print(found, as_json and (dry_run or task is None))


@augkit.command()
@STORE
@click.option(
    "--outcome", metavar="FILE", help="What an evaluation found. Default: the last one here."
)
@click.option(
    "--output", metavar="FOLDER", default="report", show_default=True, help="Where to write."
)
@JSON
def report(store: str | None, as_json: bool, **flags: Any) -> None:
    """Write what was found as a page, with tables and figures.

    One HTML file that needs no network, the verdict first; beside it CSV, JSON, LaTeX, Markdown
    and PDF for a paper.
    """
    import augkit as ak

    _print(ak.report(store, **flags), as_json)


@augkit.command()
@STORE
@click.option("--rows", metavar="FILE.csv", help="Also write a line for each real image.")
@JSON
def info(store: str | None, rows: str | None, as_json: bool) -> None:
    """Say what a store holds."""
    import augkit as ak

    _print(ak.info(store, rows=rows), as_json)


@augkit.command()
@STORE
@click.option("--run", "runs", multiple=True, metavar="NAME", help="A run to show. Default: all.")
@click.option(
    "--output", metavar="FILE", default="preview.png", show_default=True, help="The PNG file."
)
@click.option("--n", metavar="N", default=6, show_default=True, help="Images of each class.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Chooses the images.",
)
@click.option(
    "--parent", metavar="KEY", help="One training image through every traditional augmenter."
)
@click.option(
    "--between",
    type=(int, int),
    multiple=True,
    metavar="ROW ROW",
    help="The way from one row of a generative run to another. Repeat it for more lines.",
)
@click.option(
    "--interpolate", is_flag=True, help="The same, between the first two rows of each class."
)
@JSON
def preview(store: str | None, runs: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Draw real images, and below each what the runs made of it.

    Or one image through every augmenter, or the way between two generated images; --n is then the
    number of images in a line.
    """
    import augkit as ak

    with progress():
        found = ak.preview(store, runs=runs or None, **flags)
    _print(found, as_json)


@augkit.command()
@click.option("--run", required=True, metavar="NAME", help="The run.")
@STORE
@click.option(
    "--n",
    type=int,
    metavar="N",
    default=1000,
    show_default=True,
    help="The most images of each class and kind that are looked at.",
)
@click.option(
    "--seed", type=int, metavar="N", default=0, show_default=True, help="Chooses the images."
)
@click.option(
    "--features",
    type=click.Choice(["efficientnet-lite0", "descriptors"]),
    default="efficientnet-lite0",
    show_default=True,
    help="Where images are compared; descriptors need no weights and little time.",
)
@click.option(
    "--sheets", metavar="FOLDER", help="Write pictures: nearest real images; best, median, worst."
)
@click.option("--device", metavar="NAME", help="Where the network runs. Default: the fastest here.")
@JSON
def quality(run: str, store: str | None, as_json: bool, **flags: Any) -> None:
    """Say how good the images of a run are, class by class.

    They are held against real validation images, never test images, and beside them stand real
    training images: what these reach is what can be reached. KID, precision, recall, density,
    coverage, diversity and copies, with intervals; and in words, what is good and what is wrong.
    """
    import augkit as ak

    with progress() as bar:
        result = ak.quality(store, run, progress=bar, **flags)
    _print(result, as_json)


@augkit.command()
@click.option("--run", required=True, metavar="NAME", help="The run.")
@click.option("--row", type=int, metavar="N", help="One row of it, from 0. Default: all of them.")
@STORE
@click.option("--output", metavar="FILE", help="Write the image that was made again, as PNG.")
@JSON
def replay(store: str | None, as_json: bool, **flags: Any) -> None:
    """Make rows of a run again and compare them.

    They come from the recipe and from what was drawn, the parent of a traditional row, the model
    and the latent seed of a generated one, and are held against what was committed.
    """
    import augkit as ak

    with progress() as bar:
        result = ak.replay(store, progress=bar, **flags)
    _print(result, as_json)
    if not result.equal:
        sys.exit(2)


@augkit.command()
@click.argument("run")
@STORE
def retract(run: str, store: str | None) -> None:
    """Take a run back; its name is free again."""
    import augkit as ak

    ak.retract(store, run)
    click.echo(f"run {run!r} is retracted: no arm uses it any more")


@augkit.command()
@click.option("--key", "keys", multiple=True, metavar="KEY", help="The image; repeat it for more.")
@click.option(
    "--group",
    metavar="KEY_OR_GROUP",
    help="All images of a group: of a patient, or the relatives of an image.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@STORE
@JSON
def purge(keys: tuple[str, ...], store: str | None, as_json: bool, **flags: Any) -> None:
    """Really delete an image, and all that derives from it.

    For when somebody withdraws consent. Every row and every model that derives from it goes too,
    the store is rewritten, and searched byte by byte. Without --key and --group: finish a purge
    that was stopped. It cannot be undone: see first what --dry-run says.
    """
    import augkit as ak

    with progress() as bar:
        found = ak.purge(store, keys, progress=bar, **flags)
    _print(found, as_json)


@augkit.command()
@STORE
@JSON
def verify(store: str | None, as_json: bool) -> None:
    """Check every byte and every row of a store."""
    import augkit as ak

    with progress() as bar:
        found = ak.verify(ak.open(store), progress=bar)
    _print(found, as_json)
    if not found.sound:
        sys.exit(2)


augkit.add_command(export)


@augkit.command()
@click.argument("target", metavar="FILE.h5")
@STORE
def pack(target: str, store: str | None) -> None:
    """Write a store into one HDF5 file, for giving it away."""
    import augkit as ak

    with progress() as bar:
        packed = ak.pack(ak.open(store), target, progress=bar)
    click.echo(f"{packed.path}: {packed.path.stat().st_size / 1e6:.1f} MB")


@augkit.command()
@click.argument("source", metavar="FILE.h5")
@click.argument("target", metavar="FOLDER")
def unpack(source: str, target: str) -> None:
    """Write a packed store into a folder, the form to work with."""
    import augkit as ak

    with progress() as bar:
        folder = ak.unpack(ak.open(source), target, progress=bar)
    click.echo(f"{folder.path}: {counted(folder.snapshot().number, 'commit')}")


@augkit.command()
@click.argument("name", required=False)
@JSON
def plugins(name: str | None, as_json: bool) -> None:
    """List augmenters and classifiers; of NAME, its options.

    Also which weights are on this machine, and what could not be loaded, and why.
    """
    import augkit as ak
    from augkit_cli.output import plugin_listing, plugin_options

    found = ak.plugins()
    if as_json:
        click.echo(found.to_json())
    else:
        click.echo(plain(plugin_options(found.named(name)) if name else plugin_listing(found)))


augkit.add_command(plugin)


@augkit.command()
@click.argument("folder", default="demo")
def demo(folder: str) -> None:
    """Show the whole way on synthetic images.

    Makes them in FOLDER (default: demo), ingests, augments, evaluates and reports.
    """
    import augkit as ak

    with progress() as bar:
        shown = ak.demo(folder, progress=bar)
    click.echo(plain(str(shown)))


def _print(result: Any, as_json: bool) -> None:
    click.echo(result.to_json() if as_json else plain(str(result)))


def _options(pairs: Sequence[str]) -> dict[str, str]:
    """Return the -o flags as a mapping; what the keys mean is the core's business."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise OptionError(f"-o {pair} is not KEY=VALUE; augkit plugins NAME lists the keys")
        found[key] = value
    return found


def run() -> None:
    """Run the command line: the one place where errors of users end."""
    configure_logging()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        augkit.main(standalone_mode=False)
    except AugkitError as error:
        if "--verbose" in sys.argv:
            raise
        _fail(error.told(), 2)
    except click.exceptions.NoArgsIsHelpError:
        _fail("which command? augkit --help lists them", 2)
    except click.UsageError as error:
        _fail(_usage(error), 2)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except click.exceptions.Exit as exit:
        sys.exit(exit.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _fail(f"{str(error.filename)[:60]}...: the name is too long; give a shorter one", 2)
    except MemoryError:
        _fail("there is not enough memory for this: ask for fewer images or fewer workers", 2)
    except (click.Abort, KeyboardInterrupt):
        _fail("stopped; what was committed stays, the rest is made by the same line again", 130)


def _usage(error: click.UsageError) -> str:
    """Return what is wrong with a command line, and where to look."""
    message = error.format_message().rstrip(".")
    command = error.ctx.command_path if error.ctx else "augkit"
    return f"{message[:1].lower()}{message[1:]}; {command} --help shows what there is"


def _fail(message: str, code: int) -> None:
    logging.shutdown()
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message)
    click.echo(f"augkit: {shown}", err=True)
    sys.exit(code)
