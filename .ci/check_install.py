"""Check what an installation of augkit puts into site-packages: all of augkit, nothing else."""

import importlib.metadata
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Exit with a message if a name is foreign, or a file of the tree is missing."""
    recorded = importlib.metadata.files("augkit") or []
    installed = {str(f) for f in recorded if f.suffix != ".pyc"}
    modules = {f for f in installed if ".dist-info" not in f and not f.endswith("bin/augkit")}
    foreign = {f for f in installed if not f.startswith("augkit")} - {"../../../bin/augkit"}
    missing = in_tree() - modules
    if foreign or missing or modules - in_tree():
        sys.exit(f"foreign: {sorted(foreign)}\nmissing: {sorted(missing)}\nof {sorted(modules)}")
    print(f"{len(modules)} files of {', '.join(sorted({f.split('/')[0] for f in modules}))}")


def in_tree() -> set[str]:
    """Return the files of our packages, relative to the folder that holds the package."""
    packages = [ROOT / "augkit", ROOT / "cli" / "augkit_cli", *ROOT.glob("plugins/*/augkit_*")]
    return {
        str(path.relative_to(package.parent))
        for package in packages
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


main()
