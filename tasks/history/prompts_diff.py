"""What an edit of descriptions moved: two runs' knowledge bases, or those that two description files lead to."""

from dataclasses import dataclass
from pathlib import Path

from excel_core.config import RunSpec
from excel_core.errors import SettingError
from excel_core.files import read_json
from excel_core.stores import read_knowledge
from excel_core.text.class_sets import PROMPTS_FOLDER, descriptions_file, prompts_file
from excel_core.text.descriptions import FormCheck, load_descriptions
from excel_core.text.knowledge_diff import ClassChange, WeightedKnowledge, compare_knowledge
from excel_core.text.prompts import PromptSet, load_prompts
from excel_core.text.user_descriptions import load_user_descriptions
from tasks.engine.stage import RunEnvironment
from tasks.history.find_run import find_record
from tasks.stages.knowledge import knowledge_base

__all__ = ["PromptsDiff", "check_prompts", "diff_prompts", "is_file"]


@dataclass(frozen=True)
class PromptsDiff:
    """What was compared, through which CLIP, and every class's change."""

    a: str
    b: str
    clip: str
    classes: list[ClassChange]


def is_file(name: str) -> bool:
    """Whether a user means a description file rather than a run."""
    return name.endswith(".json") or Path(name).is_file()


def diff_prompts(a: str, b: str, run: RunSpec, environment: RunEnvironment, classes: str | None) -> PromptsDiff:
    """A and B, both files or both runs. Files go through `run`'s CLIP and knowledge spec; `classes` names their class set where
    the files do not tell it. SettingError for a file beside a run, and for runs of two CLIPs."""
    if is_file(a) != is_file(b):
        raise SettingError(f"{a} and {b}: one is a file, the other a run; name two of one kind")
    if is_file(a):
        clip, sides = run.clip.model, [_of_file(Path(name), classes, run, environment) for name in (a, b)]
    else:
        records = [find_record(environment.store, name, ["knowledge"]) for name in (a, b)]
        a, b = (record.title for record in records)
        clips = [record.run.clip.model for record in records]
        if clips[0] != clips[1]:
            raise SettingError(f"run {a} looks through {clips[0]}, run {b} through {clips[1]}: their T_c cannot be compared")
        clip = clips[0]
        sides = [WeightedKnowledge(read_knowledge(r.output("knowledge") / "knowledge.zarr"), r.run.knowledge) for r in records]
    return PromptsDiff(a, b, clip, compare_knowledge(sides[0], sides[1]))


def check_prompts(path: Path, classes: str | None, problem: FormCheck) -> str:
    """Read a class file (.yaml) or a description file (.json) strictly → what it holds; PromptError for what is wrong, which
    includes a class file without the descriptions that a run would look for."""
    if path.suffix == ".yaml":
        prompts = load_prompts(path, lambda filled: problem(filled, filled[:1]))
        if path.name != "classes.yaml":  # a data folder's, whose classes may be described by name
            descriptions_file(path.stem if path.resolve().parent == PROMPTS_FOLDER.resolve() else str(path))
        return f"{len(prompts.classes)} classes, {len(prompts.background)} background prompts"
    described = load_descriptions(path, _classes_of(path, classes), None, problem)
    counts = sorted({len(texts) for texts in described.texts.values()})
    return f"{len(described.texts)} classes, {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} descriptions each"


def _of_file(path: Path, classes: str | None, run: RunSpec, environment: RunEnvironment) -> WeightedKnowledge:
    prompts = _classes_of(path, classes)
    described = load_user_descriptions(path).select(prompts)  # as many of each class
    return WeightedKnowledge(knowledge_base(prompts, described, run, environment), run.knowledge)


def _classes_of(path: Path, classes: str | None) -> PromptSet:
    """The class set of a description file: as named, that of the folder of a run's descriptions, the .yaml beside it, or the
    bundled one of its name."""
    if classes is not None:
        return load_prompts(prompts_file(classes))
    if (path.parent / "prompts.json").is_file():
        return PromptSet.from_dict(read_json(path.parent / "prompts.json"))
    beside = path.with_suffix(".yaml")
    bundled = PROMPTS_FOLDER / f"{path.stem}.yaml"
    if beside.is_file() or (path.resolve().parent == (PROMPTS_FOLDER / "descriptions").resolve() and bundled.is_file()):
        return load_prompts(beside if beside.is_file() else bundled)
    raise SettingError(f"{path}: whose descriptions are these? Name their class file: --classes voc, coco, world or FILE.yaml")
