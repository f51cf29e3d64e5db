"""docs/reliability.md: each promise of a store that is killed, damaged or attacked, the test that holds it, and its figure.

python docs/reliability.py writes the page beside this file. The figures are those of docs/faults/, which `make soak` writes.
tests/core/test_docs.py fails where the page is not what they say, and where a test that is named is not there.
"""

import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PROMISES", "reliability_page"]

FOLDER = Path(__file__).parent
HEAD = """# Reliability

What excel promises of a store whose runs are killed, whose disk fails or whose files are damaged, and of a machine with others
on it. Each promise has a test that fails without it. The figures are those of `make soak` on two cores; `make test` runs a
sample. Written by `python docs/reliability.py`.
"""


@dataclass(frozen=True)
class Promise:
    """A row of the page. `figure` words the values of docs/faults/`measured`.json; without one, the test alone speaks."""

    subject: str
    text: str
    test: str  # file::function
    measured: str = ""
    figure: Callable[[dict[str, Any]], str] | None = None


RUNS, DISK, DAMAGE, OTHERS, GROWTH = (
    "Runs that are killed", "Disks and power", "Damage", "Others on this machine and elsewhere", "Size and memory"
)  # fmt: skip
PROMISES = (
    Promise(
        RUNS,
        "A run that is killed before or after any change of a file goes on to the same bytes; no complete part is built twice, "
        "and nothing half-built counts",
        "tests/faults/test_every_change.py::test_killed_at_any_change_it_goes_on_to_the_same_bytes",
        "kills",
        lambda f: f"{f['kills']:,} kills in {f['seconds']:,} s, among {f['changes_of_a_run']:,} changes of files a run",
    ),
    Promise(
        RUNS,
        "The same by SIGKILL at random moments, through Prefect",
        "tests/flows/test_kills.py::test_twenty_kills_change_no_byte",
    ),
    Promise(
        RUNS,
        "Training that is killed at its end is not trained again",
        "tests/tasks/test_commit.py::test_training_that_is_killed_at_its_end_is_not_trained_again",
    ),
    Promise(
        RUNS,
        "What a command starts ends with it, however it ends: server, Dask workers, training processes",
        "tests/faults/test_killed_commands.py::test_a_killed_command_leaves_no_server",
        "killed_commands",
        lambda f: f"{f['kills']} kills, {f['left']} processes left, gone within {f['longest_seconds']} s",
    ),
    Promise(
        RUNS,
        "gc never removes what a run uses: it decides anew, under a lock of the store, after the answer",
        "tests/tasks/test_garbage.py::test_runs_beside_a_gc_that_never_rests_lose_nothing",
    ),
    Promise(
        RUNS,
        "Two never build the same output at once, whoever removes locks meanwhile",
        "tests/tasks/test_lock.py::test_two_are_never_in_at_once_while_locks_are_removed",
    ),
    Promise(
        DISK,
        "After a power cut no output counts that has missing bytes, and the next run ends in the same bytes",
        "tests/faults/test_power_cuts.py::test_a_power_cut_leaves_no_output_with_missing_bytes_and_loses_none",
        "power_cuts",
        lambda f: f"{f['cuts']:,} cuts, {f['states']:,} states that a disk may be left in",
    ),
    Promise(
        DISK,
        "Without syncs the test before this one fails",
        "tests/faults/test_power_cuts.py::test_without_syncs_such_a_cut_is_seen_to_lose_outputs",
    ),
    Promise(
        DISK,
        "A change that the disk refuses is one line, and the next run ends in the same bytes",
        "tests/faults/test_every_change.py::test_what_the_disk_refuses_is_one_line_and_the_next_run_ends_in_the_same_bytes",
        "refusals",
        lambda f: f"{f['refusals']:,} refusals",
    ),
    Promise(
        DISK,
        "A disk without room for bytes or for files, a store that is removed under a run, no memory: one line each",
        "tests/tasks/test_failures.py::test_a_disk_that_is_full_of_bytes_or_of_files",
    ),
    Promise(
        DISK,
        "A complete store on a read-only disk can be looked at",
        "tests/tasks/test_failures.py::test_a_complete_store_on_a_read_only_disk_can_be_looked_at",
    ),
    Promise(
        DAMAGE,
        "`excel verify` names a flipped bit anywhere in a store, and the next run builds that anew",
        "tests/tasks/test_verify.py::test_a_flipped_bit_anywhere_is_named_and_built_again",
    ),
    Promise(
        DAMAGE,
        "A flipped bit of a marker, a record, a text's embedding or a checkpoint is noticed whenever it is read",
        "tests/tasks/test_commit.py::test_no_flipped_bit_of_a_marker_goes_unnoticed",
    ),
    Promise(
        DAMAGE,
        "No file of a user's or of a store makes a reader fail otherwise than in one line, run code, or write",
        "tests/faults/test_fuzz.py::test_no_reader_meets_an_input_that_it_cannot_refuse",
        "fuzz",
        lambda f: f"{sum(f['inputs'].values()):,} inputs to {len(f['inputs'])} readers",
    ),
    Promise(
        DAMAGE,
        "Images that are bombs are recorded as bad, in little memory",
        "tests/faults/test_attacks_images.py::test_bombs_are_one_reason_and_large_images_bounded_memory",
        "image_bombs",
        lambda f: f"{f['refused']} kinds",
    ),
    Promise(
        OTHERS,
        "Another user of the machine gets nothing of a store's server, nor of its files",
        "tests/faults/test_server_attacks.py::test_another_user_gets_nothing",
        "server_other_user",
        lambda f: (
            f"{f['requests']} requests, {len(f['answered'])} answered without saying anything of the store; "
            f"{f['files_read']} files read"
        ),
    ),
    Promise(
        OTHERS,
        "A page of another origin in the user's browser gets nothing and changes nothing",
        "tests/faults/test_server_attacks.py::test_a_page_of_another_origin_gets_nothing",
    ),
    Promise(
        OTHERS,
        "A result file that names a pickle as its reader is never opened",
        "tests/faults/test_results.py::test_a_planted_result_is_never_opened",
    ),
    Promise(
        OTHERS,
        "Of a TorchScript archive nothing is run",
        "tests/core/test_torchscript_archive.py::test_an_archive_that_acts_when_it_is_read_does_nothing",
    ),
    Promise(
        OTHERS,
        "The API key goes over plain http to this machine alone",
        "tests/core/test_key_transport.py::test_to_another_machine_it_does_not_unless_allowed",
    ),
    Promise(
        OTHERS,
        "No reply that holds the API key is used, as it is or in base64, hexadecimal digits or pieces",
        "tests/core/test_key_guard.py::test_a_key_is_noticed_in_every_disguise",
    ),
    Promise(
        OTHERS,
        "A language model's server that stalls, floods, redirects or breaks off is one line, bounded in time and memory",
        "tests/faults/test_llm_network.py::test_a_fault_is_one_line",
    ),
    Promise(
        OTHERS,
        "A Prefect server that hangs, dies or answers rubbish during a run is one line, and the next run goes on",
        "tests/faults/test_prefect_network.py::test_a_server_that_goes_bad_is_one_line_and_the_next_run_goes_on",
    ),
    Promise(
        OTHERS,
        "Names of images, classes and files lead nowhere else and are no formula of a spreadsheet",
        "tests/faults/test_attacks_paths.py::test_ids_that_lead_elsewhere_or_hide_something_are_refused",
    ),
    Promise(
        OTHERS,
        "The mask guard sees links, renames, programs, handles and workers",
        "tests/faults/test_attacks_masks.py::test_seen",
    ),
    Promise(
        GROWTH,
        "A run adds at most half a megabyte to Prefect's database; server and flow process do not grow",
        "tests/faults/test_soak.py::test_runs_leave_nothing_but_their_rows",
        "soak",
        lambda f: (
            f"{f['database_mb_a_run']:.2f} MB a run, {f['database_mb_a_repeat']:.2f} MB where nothing is new; over "
            f"{f['runs']} runs the server grows by {f['rss_mb_a_run']['server']:.2f} MB a run, the flow process by "
            f"{f['rss_mb_a_run']['flow']:.2f}"
        ),
    ),
    Promise(
        GROWTH,
        "`excel runs` and `excel plan` read as much of many runs as of some",
        "tests/faults/test_many_runs.py::test_a_plan_reads_as_much_of_many_runs_as_of_some",
        "many_runs",
        lambda f: (
            f"at {f['runs']} runs: `runs` {f['commands']['runs']['seconds']:.1f} s, "
            f"`plan` {f['commands']['plan']['seconds']:.1f} s, import included"
        ),
    ),
    Promise(
        GROWTH,
        "A large photo is refined window by window",
        "tests/faults/test_large_photos_memory.py::test_a_large_photo_is_refined_in_bounded_memory",
        "large_photos",
        lambda f: ", ".join(
            f"{run['megapixels']} megapixels: {run['stages']['refine']['peak'] / 2**20:,.0f} MiB" for run in f["runs"]
        ),
    ),
)
WINDOWS = (
    "An output is believed by the size and time of change of its files. Bits that a disk flips under an unchanged time are "
    "seen by `excel verify`, and by the next stage for the small files that steer it.",
    "`EXCEL_FSYNC=0`, and disks that do not keep what they say is synced, void what is said of power cuts.",
    "Text embeddings and half-written `.tmp` files may be lost or left by a power cut; they are made again, or go "
    "with `excel gc`.",
    "The file layer does not see writes through mmap and direct system calls; an undisturbed run has none that it missed.",
    "Kills in the stages sweep, ablation, figures and paper, and in training by several processes, are not enumerated; their "
    "outputs are completed by the same code.",
    "A server that wants to can disguise a key so that no guard knows it: send the key to servers that you trust.",
    "Who holds the key of a store's Prefect server can run code: it is an administrator's.",
    "Training, the report and the figures are not bounded in memory for large photos.",
)


def reliability_page() -> str:
    """The whole page as Markdown."""
    lines = [HEAD]
    for subject in dict.fromkeys(promise.subject for promise in PROMISES):
        lines += [f"## {subject}", "", "| promise | test | figure |", "|---|---|---|"]
        lines += [_row(promise) for promise in PROMISES if promise.subject == subject] + [""]
    lines += ["## What remains", ""]
    for window in WINDOWS:
        lines += textwrap.wrap(f"- {window}", 128, subsequent_indent="  ", break_on_hyphens=False)
    lines.append("")
    return "\n".join(lines)


def _row(promise: Promise) -> str:
    file, _, function = promise.test.partition("::")
    return f"| {promise.text} | `{file}` {function} | {_figure(promise)} |"


def _figure(promise: Promise) -> str:
    if promise.figure is None:
        return ""
    path = FOLDER / "faults" / f"{promise.measured}.json"
    return promise.figure(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else "not measured yet"


if __name__ == "__main__":
    (FOLDER / "reliability.md").write_text(reliability_page(), encoding="utf-8")
