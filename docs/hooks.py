"""What MkDocs adds to docs/: pages that stand elsewhere in the repository, and one API page for each folder of excel_core.

Nothing is written twice: README.md is the first page, and the API pages name modules whose docstrings mkdocstrings shows.
"""

import ast
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
API = "Python API"  # the entry of `nav` that is filled here


def on_config(config: Any) -> Any:
    """Fill the API entry of the navigation."""
    rooms: list[dict[str, str]] = [{room: f"api/{room}.md"} for room in _rooms()]
    pages = [{"Overview": "api/index.md"}, *rooms, {"errors, files, stores": "api/modules.md"}]
    for entry in config.nav:
        if API in entry:
            entry[API] = pages
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that docs/ does not hold."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=_relinked((ROOT / source).read_text(encoding="utf-8"))))
    files.append(File.generated(config, "api/index.md", content=_overview()))
    loose = sorted(path.stem for path in CORE.glob("*.py") if path.stem != "__init__")
    files.append(File.generated(config, "api/modules.md", content=_page("excel_core", loose)))
    for room in _rooms():
        files.append(File.generated(config, f"api/{room}.md", content=_page(f"excel_core.{room}", _modules(room))))
    return files


def _relinked(text: str) -> str:
    """Links of a page at the top of the repository, as they are from docs/."""
    text = re.sub(r"\]\(docs/", "](", text)
    for page, source in PAGES.items():
        text = text.replace(f"]({source}", f"]({page}")
    return text


def _rooms() -> list[str]:
    return sorted(path.parent.name for path in CORE.glob("*/__init__.py"))


def _modules(room: str) -> list[str]:
    """Dotted names of a folder's modules, below the folder."""
    paths = sorted(path.relative_to(CORE / room).with_suffix("") for path in (CORE / room).rglob("*.py"))
    return [".".join(path.parts) for path in paths if path.name != "__init__"]


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def _overview() -> str:
    """Every module of excel_core with the first sentence of its docstring."""
    lines = ["# Python API", "", "`excel_core` takes arrays and returns arrays. It imports no Prefect and parses no arguments."]
    for room in _rooms():
        lines += ["", f"## [{room}]({room}.md)", "", "| module | what it holds |", "|---|---|"]
        for module in _modules(room):
            path = CORE / room / f"{module.replace('.', '/')}.py"
            lines.append(f"| `{room}.{module}` | {_first_line(path)} |")
    return "\n".join([*lines, ""])


def _page(package: str, modules: list[str]) -> str:
    """One page: the package's own docstring, then its modules."""
    lines = [f"# {package}", "", f"::: {package}", "    options:", "      members: false", "      show_root_heading: false", ""]
    for module in modules:
        lines += [f"## {module}", "", f"::: {package}.{module}", "    options:", "      show_root_heading: false", ""]
    return "\n".join(lines)
