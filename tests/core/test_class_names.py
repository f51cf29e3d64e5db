"""Class names: what cannot be told apart is refused wherever names come from, before work starts."""

import unicodedata
from dataclasses import replace

import pytest

import excel_core as excel
from excel_core.class_names import MAX_CLASSES, canonical_name, class_names_problem, name_key
from excel_core.datasets.folder import folder_class_names
from excel_core.datasets.labels import check_class_names
from excel_core.errors import DataError, PromptError, SettingError
from excel_core.prediction.predictors import parse_classes
from excel_core.text.class_sets import named_classes
from excel_core.text.prompts import class_indices, load_prompts
from excel_core.text.user_descriptions import load_user_descriptions

NFC = "café"
NFD = unicodedata.normalize("NFD", NFC)
MANY = [f"thing {number}" for number in range(MAX_CLASSES + 1)]
REFUSED = [
    (["Dog", "dog"], "'Dog' and 'dog' differ only by case"),
    ([NFD, NFC], r"'cafe\\u0301' and 'caf\\xe9' differ only by how accents are composed"),
    ([NFC, NFD.upper()], "differ only by case"),
    (["potted_plant", "potted plant"], "differ only by signs that stand for the same"),
    (["cat", "background"], "no class can be called 'background'"),
    (["Background"], "no class can be called 'Background'"),
    (MANY, "255 classes, at most 254 fit a label map"),
]
IDS = ["case", "accents", "case and accents", "signs", "background", "Background", "many"]


@pytest.mark.parametrize(("names", "message"), REFUSED, ids=IDS)
def test_refused_by_every_door(tmp_path, names, message):
    with pytest.raises(SettingError, match=message):
        check_class_names(names)
    with pytest.raises(SettingError, match=message):
        named_classes(names)
    with pytest.raises(SettingError):
        excel.classes(names)
    with pytest.raises(SettingError):
        parse_classes(",".join(names))
    classes = "".join(f'  - {{name: "{name}", synonyms: "text {number}"}}\n' for number, name in enumerate(names))
    (tmp_path / "mine.yaml").write_text(f'name: mine\ntemplate: "a {{}}."\nclasses:\n{classes}background: [sky]\n')
    with pytest.raises(PromptError, match=r"mine\.yaml:\d+: "):
        load_prompts(tmp_path / "mine.yaml")
    (tmp_path / "labels.csv").write_text("image,labels\n" + "".join(f"{n},{name};\n" for n, name in enumerate(names)))
    with pytest.raises(DataError, match=rf"labels\.csv: .*{message}"):
        folder_class_names(tmp_path)
    (tmp_path / "labels.csv").unlink()
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        folder_class_names(tmp_path)


def test_as_many_classes_as_a_label_map_has_values():
    assert class_names_problem(MANY[:-1]) is None
    assert len(named_classes(MANY[:-1]).classes) == 254


def test_a_folder_named_with_spaces_is_the_same_class(tmp_path):
    for name in ("dog", "dog "):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{len(name)}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="'dog' and 'dog ' differ only by white space"):
        folder_class_names(tmp_path)


@pytest.mark.parametrize(("written", "asked"), [(NFC, NFD), (NFD, NFC)])
def test_accents_are_the_same_however_composed(tmp_path, written, asked):
    assert canonical_name(written) == NFC and name_key(written) == name_key(asked)
    assert class_indices([asked], ["dog", written]) == (1,)
    assert named_classes([written]).class_names == (NFC,)
    (tmp_path / "mine.yaml").write_text(
        f'name: mine\ntemplate: "a {{}}."\nclasses:\n  - {{name: {written}, synonyms: bar}}\nbackground: [sky]\n'
    )
    prompts = load_prompts(tmp_path / "mine.yaml")
    assert prompts.class_names == (NFC,)
    (tmp_path / "texts.json").write_text(f'{{"{asked}": ["a place to sit.", "a cup on a table."]}}')
    assert load_user_descriptions(tmp_path / "texts.json").select(replace(prompts), 2).texts.keys() == {NFC}
    (tmp_path / written).mkdir()
    (tmp_path / written / "a.jpg").write_bytes(b"")
    assert folder_class_names(tmp_path) == (NFC,)
