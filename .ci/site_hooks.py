"""What the site has beside its pages: files they link to, and a reference of the commands."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from augkit_cli.main import augkit
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import augkit as ak
from augkit.tables import typed

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([\w./-]+)(?:#[\w-]+)?\)")
"""A link of a page to something of the project that is no page, such as a table of figures."""
SHIM = re.compile(r"<script src=[\"']?https://unpkg.com/iframe-worker/shim[\"']?>")
"""What the plugin `offline` of the theme fetches from elsewhere, of all things."""
FOREIGN = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>"
    r"|<link[^>]*rel=[\"']?(?:stylesheet|preconnect|preload|icon)[^>]*(?:https?:)?//[^>]*>"
)
"""What a browser would fetch from another machine."""


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside of the folder of the pages that pages link to."""
    pages = [Path(config["docs_dir"]) / f.src_path for f in files.documentation_pages()]
    linked = {path for page in pages for _, path in OUTSIDE.findall(page.read_text())}
    for path in sorted(filter(is_figures, linked)):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def is_figures(path: str) -> bool:
    """Return True for a file that the site has as well; the rest is for who has the source."""
    return (ROOT / path).is_file() and not path.endswith((".md", ".py"))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Return the page with those links as the site has them, and with the generated parts."""
    markdown = OUTSIDE.sub(lambda m: f"[{m[1]}]({m[2]})" if is_figures(m[2]) else m[1], markdown)
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", "\n".join(commands(augkit, "augkit")))
        markdown = markdown.replace("<!-- plugins -->", "\n".join(plugins()))
    return markdown


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Return the page so that no browser asks another machine; raise if one would."""
    shim = (ROOT / ".ci" / "search_from_files.js").read_text()
    output = SHIM.sub(lambda _: f"<script>{shim}", output)
    if foreign := FOREIGN.search(output):
        raise ValueError(f"{page.file.src_path} needs a network: {foreign[0][:200]}")
    return output


def commands(command: click.Command, name: str) -> Iterator[str]:
    """Yield the lines of a command and of those below it: its sentence, usage, flags."""
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        if name != "augkit":
            yield f"\n## {name}\n\n{described(command)}\n"
        for inner in command.list_commands(context):
            yield from commands(command.commands[inner], f"{name} {inner}")
        return
    pieces = " ".join(command.collect_usage_pieces(context))
    level = "##" if name.count(" ") == 1 else "###"
    yield f"\n{level} {name}\n\n{described(command)}\n\n```text\n{name} {pieces}\n```\n"
    yield from flags(command, context)


def described(command: click.Command) -> str:
    """Return the help of a command as Markdown."""
    return escaped(inspect.cleandoc(command.help or "").replace("\b\n", ""))


def flags(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield a table of the flags of a command."""
    records = [
        record
        for parameter in command.params
        if isinstance(parameter, click.Option)
        and (record := parameter.get_help_record(context)) is not None
    ]
    if records:
        yield "| flag | meaning |\n|---|---|"
        for flag, text in records:
            yield f"| `{flag}` | {escaped(text)} |"


def plugins() -> Iterator[str]:
    """Yield for each plugin that comes with augkit its sentences and the table of its options."""
    found = ak.plugins()
    for kind in ("augmenter", "classifier"):
        for plugin in found.of_kind(kind):
            yield f"\n### {kind} {plugin.name}\n\n{inspect.getdoc(plugin.made_by) or ''}\n"
            if plugin.options:
                yield "| option | default | meaning |\n|---|---|---|"
            for key, default in plugin.options.items():
                yield f"| `{key}` | `{typed(default)}` | {escaped(plugin.meanings[key])} |"


def escaped(text: str) -> str:
    """Return text of a help so that Markdown takes none of its letters for a sign."""
    return "".join(f"\\{letter}" if letter in "|<*_[]" else letter for letter in text)
