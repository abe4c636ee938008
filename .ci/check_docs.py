"""Check that the documents tell the truth: links, commands and flags exist, versions agree."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import yaml
from augkit_cli.main import augkit

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
ANYWHERE = ("/path/", "/bin/", "/dev/", "/proc/", "/etc/", "/usr/")
"""Absolute paths that mean the same on every machine."""


def main() -> None:
    """Print what is wrong, a line each, and exit with 1; or say how many documents are right."""
    wrong = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in sorted(DOCUMENTS)
        for check in (broken_links, wrong_commands, machine_paths)
        for fault in check(path)
    ]
    wrong += [f"CITATION.cff: {fault}" for fault in wrong_citation()]
    wrong += [f"README.md: {fault}" for fault in stale_table()]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(DOCUMENTS)} documents and CITATION.cff are right")


def broken_links(path: Path) -> Iterator[str]:
    """Yield the links of a document to files or headings that do not exist."""
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
        file, _, heading = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists():
            yield f"link to {link}: there is no such file"
        elif heading and heading not in headings(target):
            yield f"link to {link}: there is no such heading"


def headings(path: Path) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+?) *$", without_code(path.read_text(), inline=False), re.M)
    kept = [re.sub(r"[^\w\- ]", "", title).lower() for title in titles]
    return {title.replace(" ", "-") for title in kept}


def without_code(text: str, *, inline: bool = True) -> str:
    """Return Markdown without its blocks of code, and without code in the line."""
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text) if inline else text


def wrong_commands(path: Path) -> Iterator[str]:
    """Yield the commands and flags in the code of a document that augkit does not have."""
    text = path.read_text().replace("\\\n", " ")
    lines = re.findall(r"^ *(?:\$ |\S+/bin/)?(augkit .*)", text, re.M)
    lines += re.findall(r"`(augkit [^`]*)`", text)
    for line in lines:
        name, *words = line.split("#")[0].split()[1:] or [""]
        if not re.fullmatch(r"[a-z]+", name) or not is_code(line, text):
            continue
        command = augkit.commands.get(name)
        if isinstance(command, click.Group) and words:
            name, command = f"{name} {words[0]}", command.commands.get(words[0])
        if command is None:
            yield f"{line!r}: augkit has no command {name!r}"
        else:
            flags = {w.split("=")[0] for w in words if re.match(r"--?[a-z]", w)}
            unknown = sorted(flags - flags_of(command))
            yield from (f"{line!r}: augkit {name} has no {flag}" for flag in unknown)


def is_code(line: str, text: str) -> bool:
    """Return True if a line stands in code: a sentence may begin with our name as well."""
    return line not in without_code(text)


def flags_of(command: click.Command) -> set[str]:
    """Return the flags that a command takes."""
    own = {flag for parameter in command.params for flag in parameter.opts}
    return own | {"-h", "--help"}


def machine_paths(path: Path) -> Iterator[str]:
    """Yield the absolute paths that are those of one machine."""
    for found in re.findall(r"(?<![\w.~:/)\]}$*+<>-])/[a-z]+/[\w.]\S*", path.read_text()):
        if not found.startswith(ANYWHERE):
            yield f"{found} is a path of one machine"


def stale_table() -> Iterator[str]:
    """Yield a line if the table of speed is not that of the newest figures."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.speed_table import README, in_place

    if README.read_text(encoding="utf-8") != in_place():
        yield "the table of speed is old: python -m benchmarks.speed_table --write"


def wrong_citation() -> Iterator[str]:
    """Yield what a reader of CITATION.cff would miss."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    for key in ("cff-version", "message", "title", "authors", "version", "license"):
        if not cited.get(key):
            yield f"has no {key}"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if cited.get("version") != version:
        yield f"is of version {cited.get('version')}, the package of {version}"


main()
