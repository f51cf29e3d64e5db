"""Which text embeddings of a store the runs on record need: those of the texts in their knowledge bases."""

from collections.abc import Iterable
from pathlib import Path

from excel_core.errors import StoreError
from excel_core.files import read_json
from excel_core.stores import read_knowledge
from excel_core.text.prompts import PromptSet
from tasks.engine.shared_outputs import bring_here, known_marker
from tasks.history.run_record import RunRecord
from tasks.inputs.models import text_embeddings_of

__all__ = ["needed_texts"]


def needed_texts(store: Path, records: Iterable[RunRecord]) -> set[Path] | None:
    """Files below STORE/texts; None where an output that would tell is damaged or gone."""
    used = {(output, record.device) for record in records for output in record.outputs if output.startswith("knowledge/")}
    files: set[Path] = set()
    try:
        for output, device in used:
            origin = known_marker(store / output).origin
            embeddings = text_embeddings_of(store, origin.key_parts["outside"]["clip"], device)
            described = bring_here(store / "describe" / origin.inputs["describe"])
            prompts = PromptSet.from_dict(read_json(described / "prompts.json"))
            texts = read_knowledge(bring_here(store / output) / "knowledge.zarr").texts
            paths = [embeddings.path(text) for text in (*prompts.templates(), *prompts.background_templates(), *texts)]
            files |= {path for path in paths if path is not None}
    except (StoreError, LookupError, TypeError):
        return None
    return files
