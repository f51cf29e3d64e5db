"""A trained segmenter goes to a hub with its model card, in one commit or not at all."""

import subprocess
import sys

import yaml

from excel_core.prediction.trained_segmenter import load_portable
from tests.conftest import ROOT
from tests.tasks.hub_server import running_hub

CODE = """
import sys
from pathlib import Path
from excel_core.errors import ExcelError
from tasks.history.find_run import find_record
from tasks.photos.push import push_run
try:
    print(push_run(find_record(Path(sys.argv[1]), sys.argv[2]), sys.argv[3], sys.argv[4], True, "Apache-2.0"))
except ExcelError as error:
    print(f"{type(error).__name__}: {error}")
"""


def _push(record, address, tmp_path, repository="user/dogs", file_format="safetensors", token="hf_right"):
    """In a process of its own, since the hub's client reads its address when it is imported."""
    import os

    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    environment |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-c", CODE, record.store, record.id, repository, file_format]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert not token or token not in ran.stdout + ran.stderr
    return ran.stdout.splitlines()[-1]


def test_the_segmenter_arrives_and_its_card_says_what_it_is(record, tmp_path):
    with running_hub() as hub:
        assert _push(record, hub.address, tmp_path) == f"{hub.address}/user/dogs"
    assert sorted(hub.files) == ["README.md", "segmenter.safetensors"] and hub.private == {"user/dogs": True}
    file = tmp_path / "s.safetensors"
    file.write_bytes(hub.files["segmenter.safetensors"])
    trained = load_portable(file, "cpu")
    card = hub.files["README.md"].decode()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["library_name"] == "excel-wsss" and "weakly-supervised" in head["tags"]
    assert "Supervision of the training: image-level labels." in card and ", ".join(trained.class_names) in card
    assert "| segmentation | held_out_1 | CRF |" in card and "`train.iterations=4`" in card
    assert str(record.store) not in card and str(ROOT) not in card


def test_a_hub_that_refuses_is_one_line(record, tmp_path):
    with running_hub() as hub:
        hub.refuse = (403, "You have no right to write here")
        said = _push(record, hub.address, tmp_path)
        assert said == "ServerError: user/dogs: the hub refused (403: You have no right to write here); nothing was committed"
        assert "refused (401: Invalid username or password.)" in _push(record, hub.address, tmp_path, token="hf_wrong")
    assert "cannot be reached" in _push(record, hub.address, tmp_path)  # it is gone
    assert not hub.files


def test_wrong_wishes_are_refused_before_the_hub_is_asked(record, tmp_path):
    with running_hub() as hub:
        for change, message in (
            ({"repository": "a/b/c"}, "'a/b/c' is no name of a repository; give USER/NAME"),
            ({"file_format": "palette"}, "--format palette: a repository takes a segmenter; valid: safetensors, onnx"),
            ({"token": ""}, "no token of the Hugging Face Hub: set HF_TOKEN"),
        ):
            assert message in _push(record, hub.address, tmp_path, **change)
    assert not hub.seen
    assert "would go to another machine over plain http" in _push(record, "http://192.0.2.1", tmp_path)
