"""Text files of people: whatever encoding an editor chose, every reader takes the same ones."""

import json

import pytest

from excel_core.datasets.labels import read_labels_csv
from excel_core.datasets.lists import read_list
from excel_core.errors import DataError, PromptError, SettingError
from excel_core.text.descriptions import load_descriptions
from excel_core.text.prompts import load_prompts
from excel_core.text.user_descriptions import load_user_descriptions
from excel_core.text_files import decoded_text
from flows.config_file import read_config

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]
CLASS_FILE = 'name: mine\ntemplate: "a photo of {}."\nclasses:\n  - {name: "no", synonyms: "né"}\nbackground: ["sky"]\n'
TEXTS = {"no": ["a photo of no. it is né."]}
DESCRIPTIONS = {"format": "excel-descriptions/1", "provenance": {"provider": "me"}, "classes": TEXTS}


@pytest.fixture(params=["\n", "\r\n"], ids=["unix", "windows"])
def written(request, tmp_path):
    def write(name, text, encoding):
        (tmp_path / name).write_bytes(text.replace("\n", request.param).encode(encoding))
        return tmp_path / name

    return write


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_reader_reads_what_editors_write(written, encoding):
    assert read_list(written("list.txt", "a\nné\n", encoding)) == ["a", "né"]
    assert read_labels_csv(written("labels.csv", "image,labels\nné,no\n", encoding), ["no"]) == {"né": ["no"]}
    prompts = load_prompts(written("mine.yaml", CLASS_FILE, encoding))
    assert prompts.class_names == ("no",) and prompts.classes[0].synonyms == "né"
    file = written("mine.json", json.dumps(DESCRIPTIONS, indent=1, ensure_ascii=False), encoding)
    assert load_descriptions(file, prompts, 1).texts == {"no": ("a photo of no. it is né.",)}
    assert load_user_descriptions(file).texts == {"no": ("a photo of no. it is né.",)}
    config = written("run.yaml", "data: né\nsettings: {train: {iterations: 3}}\n", encoding)
    assert read_config(config, ["data", "settings"]) == {"data": "né", "settings": ["train.iterations=3"]}


def test_another_encoding_is_refused_by_each(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(CLASS_FILE.encode("latin-1"))
    with pytest.raises(UnicodeDecodeError):
        decoded_text(path.read_bytes())
    with pytest.raises(DataError, match="not a text file in UTF-8"):
        read_list(path)
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        read_labels_csv(path, ["no"])
    with pytest.raises(PromptError, match=r"latin\.yaml:4: file: not UTF-8"):
        load_prompts(path)
    with pytest.raises(SettingError, match="is no text in UTF-8"):
        read_config(path, ["data"])
