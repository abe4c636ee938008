"""docs/ingest.md, typed to the letter: data sets of every kind that its lines name."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from test_dicom import scan
from test_documents import ROOT, blocks, type_in

import augkit as ak
from augkit.testing import write_phantoms


def lay_out(folder: Path) -> None:
    """Write what the reader of the page has."""
    write_phantoms(folder / "Dataset_BUSI_with_GT", 20)
    write_phantoms(folder / "breast" / "images", 12, seed=1)
    rows = ["image,class"]
    for path in sorted((folder / "breast" / "images").glob("*/*.png")):
        if not path.stem.endswith("_mask"):
            rows.append(f"{path.relative_to(folder / 'breast')},{path.parent.name}")
    (folder / "breast" / "labels.csv").write_text("\n".join(rows))
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 40), ("val", 12), ("test", 12)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"{part}_labels"] = np.arange(n)[:, None] % 2
    np.savez_compressed(folder / "breastmnist.npz", **arrays)
    for i in range(12):
        path = folder / "scans" / ("benign", "malignant")[i % 2] / f"IM{i + 1:04d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        levels = rng.integers(0, 4096, (40, 48)).astype(np.uint16)
        path.write_bytes(scan(levels, BitsStored=12, PatientID=f"patient {i}"))


@pytest.mark.slow
def test_every_line_of_the_page_does_what_it_says(tmp_path, monkeypatch):
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    page = list(blocks(ROOT / "docs" / "ingest.md"))
    for block in page:
        if block.kind == "sh":
            assert not block.not_run
            type_in(block.text, tmp_path)
    both = ak.open("both.store").snapshot()
    assert both.datasets == ("busi", "breast")
    assert ak.open("mnist.store").snapshot().run("flip").partition == "given"
    (python,) = (block.text for block in page if block.kind == "python")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(python, "docs/ingest.md", "exec"), {})
    keys = ak.open("clinic.store").snapshot().real.keys.tolist()
    assert said.getvalue().strip() in keys and len(keys) == 12
