"""What MkDocs adds to docs/: pages that stand elsewhere in the repository, and one API page for each folder of excel_core.

Nothing is written twice: README.md is the first page, and the API pages name modules whose docstrings mkdocstrings shows.
"""

import ast
import html
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
CORE = ROOT / "excel_core"
PAGES = {  # page of the site → file of the repository
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}
NOTEBOOK, NOTEBOOK_PAGE = "tutorial.ipynb", "tutorial.md"  # of docs/, and as the site shows it
PICTURES = ("image/jpeg", "image/png")  # kinds of output that are shown
API = "Python API"  # the entry of `nav` that is filled here
INTERFACE = "api"  # the module that `import excel_core` offers; it has a page of its own


def on_config(config: Any) -> Any:
    """Fill the API entry of the navigation."""
    folders: list[dict[str, str]] = [{folder: f"api/{folder}.md"} for folder in _folders()]
    pages = [
        {"Overview": "api/index.md"},
        {"import excel_core": "api/interface.md"},
        *folders,
        {"errors, files, stores": "api/modules.md"},
    ]
    for entry in config.nav:
        if API in entry:
            entry[API] = pages
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that docs/ does not hold."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=_relinked((ROOT / source).read_text(encoding="utf-8"))))
    files.append(File.generated(config, NOTEBOOK_PAGE, content=_notebook(ROOT / "docs" / NOTEBOOK)))
    files.append(File.generated(config, "api/index.md", content=_overview()))
    loose = sorted(path.stem for path in CORE.glob("*.py") if path.stem not in ("__init__", INTERFACE))
    files.append(File.generated(config, "api/interface.md", content=_interface()))
    files.append(File.generated(config, "api/modules.md", content=_page("excel_core", loose)))
    for folder in _folders():
        files.append(File.generated(config, f"api/{folder}.md", content=_page(f"excel_core.{folder}", _modules(folder))))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to the notebook lead to its page."""
    return markdown.replace(f"]({NOTEBOOK})", f"]({NOTEBOOK_PAGE})")


def _notebook(path: Path) -> str:
    """An executed notebook as a page: its text, its code, and what the code shows."""
    parts: list[str] = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        else:
            parts += [f"```python\n{source}\n```", *map(_output, cell["outputs"])]
    return "\n\n".join([*parts, ""])


def _output(output: dict[str, Any]) -> str:
    """One output of a cell: a picture, or text."""
    data = output.get("data", {})
    for kind in PICTURES:
        if kind in data:
            return f'<img alt="What this code shows" src="data:{kind};base64,{html.escape(data[kind].strip())}">'
    text = "".join(output.get("text") or data["text/plain"])
    return f"```text\n{text.rstrip()}\n```"


def _relinked(text: str) -> str:
    """Links of a page at the top of the repository, as they are from docs/."""
    text = re.sub(r"\]\(docs/", "](", text)
    for page, source in PAGES.items():
        text = text.replace(f"]({source}", f"]({page}")
    return text


def _folders() -> list[str]:
    return sorted(path.parent.name for path in CORE.glob("*/__init__.py"))


def _modules(folder: str) -> list[str]:
    """Dotted names of a folder's modules, below the folder."""
    paths = sorted(path.relative_to(CORE / folder).with_suffix("") for path in (CORE / folder).rglob("*.py"))
    return [".".join(path.parts) for path in paths if path.name != "__init__"]


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def _overview() -> str:
    """Every module of excel_core with the first sentence of its docstring."""
    lines = ["# Python API", "", _first_line(CORE / f"{INTERFACE}.py")]
    lines += ["", "[Its names](interface.md) · [how to use them](../python.md)"]
    lines += [
        "",
        "## All modules",
        "",
        "`excel_core` takes arrays and returns arrays. It imports no Prefect and parses no arguments.",
    ]
    for folder in _folders():
        lines += ["", f"### [{folder}]({folder}.md)", "", "| module | what it holds |", "|---|---|"]
        for module in _modules(folder):
            path = CORE / folder / f"{module.replace('.', '/')}.py"
            lines.append(f"| `{folder}.{module}` | {_first_line(path)} |")
    return "\n".join([*lines, ""])


def _interface() -> str:
    """The module that `import excel_core` offers, as one page."""
    return f"# import excel_core\n\n::: excel_core.{INTERFACE}\n    options:\n      show_root_heading: false\n"


def _page(package: str, modules: list[str]) -> str:
    """One page: the package's own docstring, then its modules."""
    lines = [f"# {package}", "", f"::: {package}", "    options:", "      members: false", "      show_root_heading: false", ""]
    for module in modules:
        lines += [f"## {module}", "", f"::: {package}.{module}", "    options:", "      show_root_heading: false", ""]
    return "\n".join(lines)
