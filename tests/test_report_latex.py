"""The LaTeX table is set by a real LaTeX, whatever classes and data sets are called."""

import shutil
import subprocess
from pathlib import Path

import pytest
from test_report import an_outcome, hostile_outcome

from augkit.reports.exports import write_tables

LATEX = shutil.which("pdflatex")
DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
\input{table.tex}
\end{document}
"""


@pytest.mark.skipif(LATEX is None, reason="no pdflatex here")
@pytest.mark.parametrize("outcome", [an_outcome(), hostile_outcome()], ids=["plain", "hostile"])
def test_the_table_is_set_without_an_error(tmp_path: Path, outcome: dict) -> None:
    write_tables(outcome, tmp_path)
    (tmp_path / "paper.tex").write_text(DOCUMENT)
    line = [LATEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 1000
    written = {path.suffix for path in tmp_path.iterdir()}
    assert written == {".csv", ".json", ".md", ".tex", ".aux", ".log", ".pdf"}
