"""A run's trained segmenter in a repository of the Hugging Face Hub, with its model card: one commit, or none.

The token comes from the environment (HF_TOKEN) or the hub's own login, and goes to the hub's client alone.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from excel_core.errors import ServerError, SettingError
from excel_core.text.key_transport import require_encrypted
from tasks.history.run_record import RunRecord
from tasks.photos.export import MODEL_FORMATS, ExportRequest, export_run

__all__ = ["push_run"]

HTTP_PACKAGES = ("httpx", "httpx2", "requests")  # whose errors the hub's client, by its version, lets through


def push_run(record: RunRecord, repository: str, file_format: str, private: bool, licence: str | None) -> str:
    """Export the segmenter of `record` and commit its files to `repository`, which is made where it is not there → its address.

    SettingError for a name that the hub does not take, an unknown format, no token, or one that would cross a network
    unencrypted: before anything is exported. ServerError where the hub refuses or cannot be reached; nothing is
    committed then.
    """
    if file_format not in MODEL_FORMATS:
        raise SettingError(f"--format {file_format}: a repository takes a segmenter; valid: {', '.join(MODEL_FORMATS)}")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise SettingError(f"{repository!r} is no name of a repository; give USER/NAME: {error}") from None
    api = HfApi(token=_token(), endpoint=constants.ENDPOINT)
    with tempfile.TemporaryDirectory(prefix="excel-push-") as folder:
        files = Path(folder) / "files"
        export_run(record, ExportRequest(file_format, licence=licence), files)
        with _hub_errors(repository):
            address = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repository, folder_path=files, ignore_patterns=["export.json"], commit_message=f"excel: run {record.id}"
            )
    return str(address)


def _token() -> str:
    token = get_token()
    if not token:
        raise SettingError("no token of the Hugging Face Hub: set HF_TOKEN, or run `hf auth login`")
    require_encrypted(constants.ENDPOINT, "the token of the Hugging Face Hub", "HF_ENDPOINT")
    return token


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """The hub's refusals as one line, without the request's headers."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        words = (error.server_message or "").strip() or "no reason given"
        raise ServerError(f"{repository}: the hub refused ({status}: {words}); nothing was committed") from None
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in HTTP_PACKAGES:
            raise
        host = urlsplit(constants.ENDPOINT).netloc
        raise ServerError(f"{repository}: {host} cannot be reached ({error}); nothing was committed") from None
