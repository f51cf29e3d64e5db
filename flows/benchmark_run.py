"""From a request to the run that compares methods. Whatever is wrong with any of them is refused here. Knows no Prefect."""

from collections import Counter
from collections.abc import Sequence

from excel_core.config import RunSpec
from excel_core.config.methods import METHODS, short_method
from excel_core.config.presets import preset, with_edits
from excel_core.errors import ExcelError, SettingError
from excel_core.evaluation.benchmark import before_edits, method_runs, unused_by_all
from flows.request import BenchmarkRequest, ResolvedRun
from flows.settings import check_run, run_environment, with_requests_edits

__all__ = ["benchmark_run"]

TOLD_BY_NAME = ("methods", "own_settings", "seeds", "limit")  # fields of `benchmark` that options set
SHARED = "dataset"  # the stage that all methods must have alike


def benchmark_run(request: BenchmarkRequest) -> ResolvedRun:
    """The first method's run with the comparison in its field `benchmark`, and where it happens. A user's settings win over
    what the limit makes of a preset."""
    methods = _methods(request.methods)
    shared, own_settings = _settings(request.settings, methods)
    benchmark = {"methods": methods, "own_settings": own_settings, "limit": request.limit}
    benchmark |= {} if request.seeds is None else {"seeds": request.seeds}
    first = with_edits(preset(request.preset, methods[0]), {"benchmark": benchmark})
    spec = with_requests_edits(first, request, shared).benchmark  # an edit may be of the comparison itself
    run = with_edits(before_edits(request.preset, methods[0], spec), {"benchmark": benchmark})
    run = with_requests_edits(run, request, shared)
    if unused := unused_by_all(run):
        raise SettingError(f"{unused[0]}: none of {', '.join(methods)} uses it; leave it out")
    environments = [_checked(one, method, request).environment for method, one in method_runs(run).items()]
    return ResolvedRun(run, environments[0])


def _methods(names: Sequence[str]) -> tuple[str, ...]:
    """Each method once, by its short name; all of them, as published, where none is named."""
    methods = tuple(map(short_method, names or METHODS))
    twice = [method for method, count in Counter(methods).items() if count > 1]
    if twice:
        raise SettingError(f"--methods {','.join(names)}: {twice[0]} is named twice; name each method once")
    return methods


def _settings(settings: Sequence[str], methods: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Those of all methods, and those of one, METHOD.stage.field=value. SettingError for a method that is not compared, and for
    what would compare methods on other images."""
    compared, own_settings, shared = {method.partition(":")[0] for method in methods}, [], []
    for setting in settings:
        name, _, setting_of_method = setting.partition(".")
        if name not in METHODS:
            shared.append(setting)
        elif name not in compared:
            raise SettingError(f"--set {setting}: {name} is not among the methods; these are {', '.join(methods)}")
        elif setting_of_method.startswith(f"{SHARED}."):
            raise SettingError(f"--set {setting}: all methods see the same images; leave {name} out to set it for all")
        else:
            own_settings.append(setting)
        field = (setting_of_method if name in METHODS else setting).partition("=")[0].strip()
        if field.startswith("paper.") or field in [f"benchmark.{told}" for told in TOLD_BY_NAME]:
            raise SettingError(f"--set {setting}: methods, seeds and limit are told by --methods, --seeds and --limit")
    return shared, tuple(own_settings)


def _checked(run: RunSpec, method: str, request: BenchmarkRequest) -> ResolvedRun:
    """A method's run, checked like a run of its own; its errors name the method."""
    try:
        check_run(run)
        if not run.evaluate.kinds:
            raise SettingError(
                "evaluate.kinds: it trains no segmenter, so that only `static` can be scored; add it, or leave it out"
            )
        if run.train.supervision == "masks":
            raise SettingError("train.supervision=masks: a benchmark is about image-level labels; leave it out")
        return ResolvedRun(run, run_environment(run, request))
    except ExcelError as error:
        raise type(error)(f"{method}: {error}") from None
