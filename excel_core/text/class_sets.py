"""A run's class set and the descriptions of it that exist already: from the repository's `prompts/`, from the user's files, or
by class name, for a data folder without a class file."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from excel_core.class_names import canonical_name, class_names_problem
from excel_core.config import DescribeSpec, RunSpec
from excel_core.datasets.layouts import LAYOUTS
from excel_core.errors import PromptError, SettingError
from excel_core.text.descriptions import Descriptions, load_descriptions
from excel_core.text.prompts import ClassPrompt, PromptSet, load_prompts
from excel_core.text.user_descriptions import UserDescriptions, load_user_descriptions

__all__ = [
    "BUNDLED_CLASS_SETS", "DATA_CLASSES", "PROMPTS_FOLDER", "bundled_descriptions", "class_set", "class_set_of_file",
    "describe_bundled", "descriptions_file", "known_descriptions", "named_classes", "prompts_file", "user_descriptions",
    "written_descriptions",
]  # fmt: skip

DATA_CLASSES = "data"  # dataset.prompts: the classes of the data folder itself
BUNDLED_CLASS_SETS = ("voc", "coco")  # class files whose classes are known by name; the first that knows a name wins
PROMPTS_FOLDER = Path(__file__).parents[2] / "prompts"  # not by import: a user's own prompts.py would be taken for it


def class_set(run: RunSpec, data: Path | None) -> PromptSet:
    """The classes of a run with their prompts; `data` is its data folder, which matters for `dataset.prompts=data` alone:
    then classes.yaml in it, or the class names that its layout tells."""
    name = run.dataset.prompts
    if name != DATA_CLASSES:
        return class_set_of_file(name)
    names = LAYOUTS[run.dataset.layout].class_names
    if data is not None and (data / "classes.yaml").is_file():
        return _prompts(data / "classes.yaml")
    if data is None or names is None:
        raise SettingError(
            f"dataset.prompts={DATA_CLASSES}: layout {run.dataset.layout!r} needs classes.yaml in its data folder"
        )
    return named_classes(names(data))


def class_set_of_file(name: str) -> PromptSet:
    """`voc` → the class set of prompts/voc.yaml; or that of a path to a .yaml file. SettingError lists the valid names."""
    return _prompts(prompts_file(name))


def written_descriptions(run: RunSpec, data: Path | None) -> Descriptions:
    """The run's first describe.n descriptions of every class, of provider `file` or `bundled`; of `none`, no texts. PromptError
    names the classes that have none, or too few."""
    if run.describe.provider == "none":
        return Descriptions({name: () for name in class_set(run, data).class_names}, {"provider": "none"})
    if run.describe.provider == "file":
        return user_descriptions(run.describe).select(class_set(run, data), run.describe.n)
    return bundled_descriptions(run, data)


def user_descriptions(spec: DescribeSpec) -> UserDescriptions:
    """All descriptions in describe.file. SettingError where there is no such file, PromptError for its content."""
    if spec.file is None:
        raise SettingError("describe.provider=file: no file is named; add --set describe.file=FILE.json")
    path = Path(spec.file)
    if not path.is_file():
        raise SettingError(f"describe.file: {spec.file!r} does not exist; give the path of a .json file with descriptions")
    return _read_user_descriptions(path, _file_version(path))


def bundled_descriptions(run: RunSpec, data: Path | None) -> Descriptions:
    """The run's first describe.n descriptions of every class: of the file that goes with its class file; for classes known
    by name alone, the bundled ones. PromptError names the classes that have none."""
    prompts, n, name = class_set(run, data), run.describe.n, run.dataset.prompts
    if name != DATA_CLASSES:
        return _descriptions(descriptions_file(name), prompts, n)
    if data is not None and (data / "classes.json").is_file():
        return _descriptions(data / "classes.json", prompts, n)
    return _descriptions_by_name(
        prompts,
        n,
        f"write {data}/classes.json, give a file: --set describe.provider=file --set describe.file=FILE, or let a model "
        "write them: --set describe.provider=openai",
    )


def describe_bundled(prompts: PromptSet, n: int) -> Descriptions:
    """n bundled descriptions of every class: of the bundled class set that `prompts` is, or else by class name. PromptError
    names the classes that have none."""
    for path in sorted(PROMPTS_FOLDER.glob("*.yaml")):
        if _prompts(path) == prompts:
            return _descriptions(descriptions_file(path.stem), prompts, n)
    return _descriptions_by_name(
        prompts,
        n,
        "give a file (file=), let a language model write them (describe.provider=openai), or build the knowledge base "
        "without descriptions",
    )


def _descriptions_by_name(prompts: PromptSet, n: int, advice: str) -> Descriptions:
    texts = known_descriptions(prompts.class_names, n)
    missing = [name for name in prompts.class_names if name not in texts]
    if missing:
        raise PromptError(f"no bundled descriptions of {', '.join(missing)}; {advice}")
    return Descriptions(texts, {"provider": "bundled", "file": "by class name"})


def named_classes(names: Sequence[str]) -> PromptSet:
    """A class set from names alone: plain synonyms of classes that the bundled files know, VOC's template and background.
    SettingError for names that cannot be classes together."""
    problem = class_names_problem(names)
    if problem is not None:
        raise SettingError(f"class names: {problem}")
    names = [canonical_name(name) for name in names]
    voc, known_classes = _prompts(prompts_file(BUNDLED_CLASS_SETS[0])), _known_classes()
    synonyms = {key: prompt.plain_synonyms for key, (_, prompt) in known_classes.items()}
    classes = tuple(ClassPrompt(name, synonyms.get(_key(name), _key(name))) for name in names)
    # A background prompt that is also a class would compete for its pixels.
    class_keys = {_key(name) for name in names}
    background = tuple(text for text in voc.background if text not in class_keys)
    return PromptSet("named", voc.template, classes, background)


def known_descriptions(names: Sequence[str], n: int) -> dict[str, tuple[str, ...]]:
    """n bundled descriptions of each of the named classes that the bundled files know."""
    known_classes = _known_classes()
    texts = {}
    for name in names:
        if _key(name) in known_classes:
            class_file, prompt = known_classes[_key(name)]
            described = _descriptions(descriptions_file(class_file), _prompts(prompts_file(class_file)), n)
            texts[name] = described.texts[prompt.name]
    return texts


def prompts_file(name: str) -> Path:
    """`voc` → prompts/voc.yaml; a path to a .yaml file is taken as it is. SettingError lists the valid names."""
    return _find(name, PROMPTS_FOLDER, ".yaml", "dataset.prompts")


def descriptions_file(name: str) -> Path:
    """`voc` → prompts/descriptions/voc.json; for a path to a class file, the .json beside it. PromptError where that is
    missing, SettingError for an unknown name."""
    if name.endswith(".yaml"):
        beside = Path(name).with_suffix(".json")
        if not beside.is_file():
            raise PromptError(
                f"describe.provider=bundled: {beside}, which holds the descriptions of the classes in {name}, does not exist; "
                "write it, or choose another source: --set describe.provider=file, openai or none"
            )
        return beside
    return _find(name, PROMPTS_FOLDER / "descriptions", ".json", "describe.provider=bundled")


def _known_classes() -> dict[str, tuple[str, ClassPrompt]]:
    """Class file and class by name, as `_key` writes it."""
    known: dict[str, tuple[str, ClassPrompt]] = {}
    for class_file in BUNDLED_CLASS_SETS:
        for prompt in _prompts(prompts_file(class_file)).classes:
            known.setdefault(_key(prompt.name), (class_file, prompt))
    return known


def _key(name: str) -> str:
    """Potted_Plant → potted plant."""
    return " ".join(name.replace("_", " ").split()).lower()


def _prompts(path: Path) -> PromptSet:
    return _read_prompts(path, _file_version(path))


def _descriptions(path: Path, prompts: PromptSet, n: int) -> Descriptions:
    return _read_descriptions(path, prompts, n, _file_version(path))


def _file_version(path: Path) -> tuple[int, int]:
    """Size and time of change (ns): a file that was edited since is read again, in a process that lives long."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=8)
def _read_prompts(path: Path, version: tuple[int, int]) -> PromptSet:
    return load_prompts(path)


@lru_cache(maxsize=8)
def _read_descriptions(path: Path, prompts: PromptSet, n: int, version: tuple[int, int]) -> Descriptions:
    return load_descriptions(path, prompts, n)


@lru_cache(maxsize=4)
def _read_user_descriptions(path: Path, version: tuple[int, int]) -> UserDescriptions:
    return load_user_descriptions(path)


def _find(name: str, folder: Path, suffix: str, field: str) -> Path:
    path = Path(name) if name.endswith(suffix) else folder / f"{name}{suffix}"
    if not path.is_file():
        valid = sorted(file.stem for file in folder.glob(f"*{suffix}"))
        raise SettingError(f"{field}: there is no {name!r}; valid: {', '.join(valid)}, or the path of a {suffix} file")
    return path
