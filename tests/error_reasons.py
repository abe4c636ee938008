"""Messages that no command line of the tests shows, by reason and file; "*": all of a file."""

PYTHON = "only a caller from Python can give such a value; the command line never passes it on"
PLUGIN = "a plugin is at fault, or a network as it learns; tests of the plugin contract show it"
AT_ONCE = "another command has to do something in the very moment; tests do both in one process"
MACHINE = "the machine lacks memory, a disk, locks or a package; tests take these away one by one"
BY_HAND = "a file was made by hand so that its hashes fit; test_screening and the fuzzer make them"
ELSEWHERE = "a model or weights come from elsewhere; tests of fitting and weights bring them"
IN_PYTHON = "a command line shows it as well; so far a test reads it from Python alone"

NOT_BY_COMMAND: dict[str, dict[str, tuple[str, ...]]] = {
    PYTHON: {
        "augkit/chain.py": ("a chain needs at least one",),
        "augkit/engines/engine.py": ("engine is", "cannot be sent to another process"),
        "augkit/engines/local.py": ("backend is",),
        "augkit/evaluation.py": ("split by",),
        "augkit/exporting.py": ("there is no format", "shard_bytes is"),
        "augkit/feature_space.py": ("features are",),
        "augkit/ingestion/decode.py": (
            "channels is", "fit is", "image: has", "is empty", "is no regular file",
        ),
        "augkit/ingestion/ingest.py": (
            "conflicts is", "dataset", "labels, keys and groups", "a block of", "masks must",
            "images than keys", "use other keys",
        ),
        "augkit/making.py": ("block is",),
        "augkit/memorisation.py": ("no images to compare with",),
        "augkit/phantoms.py": ("*",),
        "augkit/recipes.py": ("is text; give a list", "must be a whole number"),
        "augkit/scaffolding.py": ("kind is",),
        "augkit/store/reading.py": ("only what Snapshot.training", "has no model"),
        "augkit/store/samples.py": ("the labels of test images",),
        "augkit/store/store.py": ("cannot be stored", "commits: there must be"),
        "augkit/torch.py": ("*",),
    },
    PLUGIN: {
        "augkit/chain.py": ("take it out of the chain",),
        "augkit/classifier_checks.py": ("the labels of these samples",),
        "augkit/features.py": ("features of", "features under the key"),
        "augkit/fitting.py": ("fit() ", "usual_budget()", "has the fit_seed", "save() removed"),
        "augkit/making.py": (
            "instead of uint8", "was fitted on images that", "makes other pixels",
            "the same memory again",
        ),
        "augkit/metrics.py": ("*",),
        "augkit/options.py": ("which JSON cannot hold",),
        "augkit/plans.py": (
            "plan() must return", "failed in", "settle() returned", "environment() must return",
        ),
        "augkit/registry.py": ("refuses its options", "cannot be used"),
        "augkit/store/models.py": ("the plugin saved",),
        "augkit/trials.py": ("*",),
        "plugins/classifiers/augkit_classifiers/linear.py": ("did not converge",),
        "plugins/classifiers/augkit_classifiers/machines.py": ("*",),
        "plugins/classifiers/augkit_classifiers/training.py": ("the loss",),
        "plugins/dagan/augkit_dagan/checkpoints.py": ("*",),
        "plugins/dagan/augkit_dagan/sampling.py": ("*",),
        "plugins/dagan/augkit_dagan/training.py": ("*",),
    },
    AT_ONCE: {
        "augkit/augmentation.py": ("changed meanwhile",),
        "augkit/fitting.py": ("changed meanwhile",),
        "augkit/ingestion/intake.py": ("another command has just",),
        "augkit/store/erasing.py": ("another command has just", "a command is training"),
        "augkit/store/folder.py": ("another command has just",),
        "augkit/store/pack.py": ("another command is writing",),
        "augkit/store/packed.py": ("another command has just",),
        "augkit/store/screening.py": ("is written to all the time",),
        "augkit/store/shards.py": ("was purged since",),
        "augkit/store/standing.py": ("is gone", "was purged"),
    },
    MACHINE: {
        "augkit/demonstration.py": ("cannot write to",),
        "augkit/engines/cluster.py": ("*",),
        "augkit/engines/engine.py": ("needs the extra",),
        "augkit/engines/local.py": ("a worker process died",),
        "augkit/engines/processes.py": ("worker processes die",),
        "augkit/outcomes.py": ("cannot write to",),
        "augkit/reports/quality_sheets.py": ("cannot write into",),
        "augkit/results.py": ("cannot write to",),
        "augkit/scaffolding.py": ("cannot be written",),
        "augkit/store/durable.py": ("cannot write to",),
        "augkit/store/erasing.py": ("cannot hold off", "is too long to be rewritten"),
        "augkit/store/pack.py": ("cannot write to",),
        "plugins/classifiers/augkit_classifiers/efficientnet_lite.py": ("*",),
        "plugins/classifiers/augkit_classifiers/texture.py": ("pip install",),
        "plugins/classifiers/augkit_classifiers/training.py": ("not enough memory",),
        "plugins/classifiers/augkit_classifiers/weights.py": (
            "are not on this machine", "that torchvision publishes", "that augkit knows",
        ),
    },
    BY_HAND: {
        "augkit/store/folder.py": ("has lost", "cannot be read", "holds a link"),
        "augkit/store/format.py": ("more than it can have", "get the store again"),
        "augkit/purging.py": ("does not say what it was to do",),
        "augkit/store/erasing.py": (
            "names images that do not exist", "of images that do not exist", "never writes",
        ),
        "augkit/store/models.py": ("describes no model",),
        "augkit/store/packed.py": (
            "has lost", "is no plain file", "nothing describes it", "cannot be read", "is a link",
        ),
        "augkit/store/plain.py": ("*",),
        "augkit/store/reading.py": (
            "came with a part that does not exist", "labels without a class",
            "does not fit the images", "bytes of memory", "which no commit names",
            "does not exist", "do not exist", "of several parents", "that of their parent",
            "that are no class", "that are none", "that are no numbers", "no whole numbers",
        ),
        "augkit/store/screening.py": ("is no regular file",),
        "augkit/store/shards.py": ("cannot be read", "no usable column", "its columns are not"),
        "augkit/store/store.py": ("augkit verify lists what is affected",),
    },
    IN_PYTHON: {
        "augkit/appraisal.py": ("*",),
        "augkit/augmentation.py": ("has no training images",),
        "augkit/evaluation.py": ("holds one class only", "its groups are too few"),
        "augkit/examination.py": ("cannot be read", "offers no plugins"),
        "augkit/fitting.py": ("has no training images",),
        "augkit/ingestion/decode.py": (
            "no image to take the size from", "MiB, the limit is", "of unknown scale",
            "has grey levels", "save it as 8-bit grey",
        ),
        "augkit/ingestion/dicom.py": ("*",),
        "augkit/ingestion/folders.py": ("is a file, no folder", "which are no classes"),
        "augkit/ingestion/layouts.py": ("is no CSV manifest",),
        "augkit/ingestion/manifests.py": (
            "no valid CSV", "cannot be read", "fill in the cell", "no regular file", "is larger",
        ),
        "augkit/ingestion/metadata.py": ("*",),
        "augkit/ingestion/npz.py": ("*",),
        "augkit/ingestion/parts.py": ("*",),
        "augkit/ingestion/pseudonyms.py": ("the store has pseudonyms", "is not the secret"),
        "augkit/ingestion/review.py": ("*",),
        "augkit/ingestion/tars.py": ("*",),
        "augkit/ingestion/windowing.py": ("that are no numbers",),
        "augkit/options.py": ("it takes none",),
        "augkit/partitions.py": ("is to be tested on", "the given split is one split"),
        "augkit/purging.py": (
            "several data sets have a group", "these are all images", "names no group",
        ),
        "augkit/reports/captions.py": ("*",),
        "augkit/reports/filmstrips.py": ("*",),
        "augkit/reports/previewing.py": ("*",),
        "augkit/reports/reporting.py": ("is no file that can be read", "is larger than"),
        "augkit/reports/sheets.py": ("has no training images",),
        "augkit/selection.py": ("no row of",),
        "augkit/store/pack.py": ("is empty",),
        "augkit/store/reading.py": ("holds no images yet",),
    },
    ELSEWHERE: {
        "augkit/fitting.py": (
            "not those that it is named after", "is a model of", "numbers the classes",
            "was fitted on", "is no plain file", "checkpoints are not here",
        ),
        "plugins/classifiers/augkit_classifiers/weights.py": (
            "must hold a state dict", "values that are no numbers", "there is no weights file",
            "is not loaded", "of another network",
        ),
        "plugins/classifiers/augkit_classifiers/network.py": ("nobody publishes",),
        "plugins/classifiers/augkit_classifiers/timm_network.py": ("does not take images",),
    },
}  # fmt: skip
