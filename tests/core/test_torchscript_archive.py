"""OpenAI's archives are TorchScript: their tensors are read, their code is not."""

import io
import pickle
import sys
import tarfile
import warnings
import zipfile
from contextlib import contextmanager

import pytest
import torch

from excel_core.errors import ModelError
from excel_core.files import load_tensors
from excel_core.models import clip_weights
from excel_core.models.clip_weights import load_clip
from excel_core.models.torchscript_archive import is_torchscript, read_torchscript
from tests.conftest import small_clip_model
from tests.core.test_clip_weights import CONFIG, _archive

STARTS_A_PROCESS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork")
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.fixture(scope="module")
def openai(tmp_path_factory):
    """A small CLIP as OpenAI published its own, and its tensors."""
    model = small_clip_model(seed=5).eval()
    path = tmp_path_factory.mktemp("openai") / "clip.pt"
    with _quiet():
        _archive(model, path)
    return path, model.state_dict()


@contextmanager
def _quiet():
    """TorchScript warns that it is old, in other words in every version, and of the tower's shape checks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Writes(torch.nn.Module):
    """When TorchScript reads it, it writes a file."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self):
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.ones(1), self.path)

    def forward(self, image: torch.Tensor):
        return image


@pytest.fixture(scope="module")
def harmful(tmp_path_factory):
    """An archive that writes `written` when `torch.jit.load` reads it, and that path."""
    folder = tmp_path_factory.mktemp("harmful")
    with _quiet():
        torch.jit.script(_Writes(str(folder / "written"))).save(str(folder / "writes.pt"))
    (folder / "written").unlink(missing_ok=True)
    return folder / "writes.pt", folder / "written"


def _members(path):
    with zipfile.ZipFile(path) as archive:
        return {member.filename: archive.read(member) for member in archive.infolist()}


def _with(source, path, compression=zipfile.ZIP_STORED, **changed):
    """The archive with other members: `data__pkl=b""` is NAME/data.pkl, None leaves it out."""
    members = _members(source)
    root = next(name for name in members if name.endswith("/data.pkl")).removesuffix("data.pkl")
    members |= {root + name.replace("__", "."): content for name, content in changed.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def _pickled(source, path, pickled):
    return _with(source, path, data__pkl=pickled)


def _refused(path):
    with pytest.raises(ModelError, match="nothing of it was run") as refused:
        read_torchscript(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_every_tensor_of_an_archive_is_read_as_torch_reads_it(openai):
    path, state = openai
    tensors = read_torchscript(path)
    assert is_torchscript(path) and set(tensors) == set(state) | {"input_resolution", "context_length", "vocab_size"}
    for name, value in state.items():
        assert torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype, name


def test_half_precision_from_a_gpu_is_read_onto_the_cpu(openai, tmp_path):
    class Halves(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.linspace(0, 1, 6).half().reshape(2, 3).T)
            self.register_buffer("none", torch.zeros(0, 4))
            self.register_buffer("bits", torch.tensor([True, False]))

        def forward(self, image: torch.Tensor):
            return image

    model = Halves()
    with _quiet():
        torch.jit.script(model).save(str(tmp_path / "cpu.pt"))
    pickled = next(data for name, data in _members(tmp_path / "cpu.pt").items() if name.endswith("/data.pkl"))
    from_gpu = pickled.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert from_gpu != pickled
    tensors = read_torchscript(_pickled(tmp_path / "cpu.pt", tmp_path / "gpu.pt", from_gpu))
    for name, value in model.state_dict().items():
        assert torch.equal(tensors[name], value) and tensors[name].device.type == "cpu", name


def test_an_archive_that_acts_when_it_is_read_does_nothing(harmful, monkeypatch):
    path, written = harmful
    with _quiet():
        torch.jit.load(str(path))
    assert written.exists()  # it does act, where torch reads it
    written.unlink()
    monkeypatch.setattr(clip_weights, "clip_config", lambda model: CONFIG)
    with pytest.raises(ModelError, match="__setstate__.*nothing of it was run"):
        load_clip(f"excel-tiny:{path}")
    assert not written.exists()


def test_code_in_an_archive_is_not_looked_at(openai, harmful, tmp_path):
    path, state = openai
    code = {name.partition("/")[2]: data for name, data in _members(harmful[0]).items() if "/code/" in name}
    mixed = _with(path, tmp_path / "mixed.pt", **{name.replace(".", "__"): data for name, data in code.items()})
    assert torch.equal(read_torchscript(mixed)["visual.proj"], state["visual.proj"])
    assert not harmful[1].exists()


class _Shell:
    def __reduce__(self):
        import os

        return (os.system, ("echo ran",))


ATTACKS = {
    "a function": (pickle.dumps(_Shell(), 2), "asks for 'posix.system'"),
    "a function of protocol 4": (pickle.dumps(_Shell(), 4), "has the operation"),
    "builtins": (b"c__builtin__\nexec\nX\x04\x00\x00\x00pass\x85R.", "asks for '__builtin__.exec'"),
    "an old instance": (b"(iposix\nsystem\n.", "the operation INST"),
    "an extension": (b"\x82\x01.", "the operation EXT1"),
    "another module's class": (b"ctorch.jit\nScriptModule\n)\x81.", "asks for 'torch.jit.ScriptModule'"),
    "torch's own loader": (b"ctorch.storage\n_load_from_bytes\nC\x01a\x85R.", "_load_from_bytes"),
    "a state for a function": (REBUILD + b"}X\x08\x00\x00\x00__code__Nsb.", "__setstate__"),
    "a call of a class": (b"c__torch__.M\nM\n)R.", "calls something else"),
    "a class of C++": (b"c__torch__.torch.classes.quantized\nPacked\n)\x81K\x01\x85b.", "__setstate__"),
    "no module": (b"}.", "holds no module"),
    "nothing": (b"", "damaged"),
    "no end": (b"}", "damaged"),
    "an empty stack": (b")\x81.", "damaged"),
    "an unknown memo": (b"h\x09.", "damaged"),
    "a storage of objects": (b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nN)NtQ.", "not of plain numbers"),
    "a quantised tensor": (b"ctorch._utils\n_rebuild_qtensor\n.", "_rebuild_qtensor"),
    "an object that holds itself": (b"c__torch__.M\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.", "too many parts"),
    "a key that is no name": (b"c__torch__.M\nM\n)\x81})Nsb.", "other keys"),
    "too long": (b"(" * (2 * 2**20 + 1), "larger than it can be"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_pickle_that_wants_more_than_tensors_is_refused(openai, tmp_path, name, capfd):
    pickled, why = ATTACKS[name]
    started = []
    sys.addaudithook(lambda event, arguments: started.append(event) if event.startswith(STARTS_A_PROCESS) else None)
    assert why in _refused(_pickled(openai[0], tmp_path / "a.pt", pickled))
    assert not started and "ran" not in capfd.readouterr().out


def _tensor(offset, size, stride, count=b"K\x02"):
    """A pickle of a module with one tensor `w` in the archive's storage 2, which has one number, in the words of `pickle`."""
    numbers = b"".join(pickle.dumps(value, 2)[2:-1] for value in (offset, size, stride))
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x002X\x03\x00\x00\x00cpu" + count + b"tQ"
    made = REBUILD + b"(" + storage + numbers + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"c__torch__.M\nM\n)\x81}X\x01\x00\x00\x00w" + made + b"sb."


@pytest.mark.parametrize(
    ("offset", "size", "stride", "why"),
    [
        (0, (10**12,), (0,), "larger than its storage"),  # one number, repeated
        (0, (2,), (1,), "larger than its storage"),
        (1, (1,), (1,), "larger than its storage"),
        (-1, (1,), (1,), "no number that it can be"),
        (0, (1,), (2**60,), "no number that it can be"),
        (0, (True,), (1,), "no number that it can be"),
        (0, (1, 1), (1,), "do not fit"),
        (0, (1,) * 40, (1,) * 40, "do not fit"),
    ],
)
def test_a_tensor_stays_inside_its_storage(openai, tmp_path, offset, size, stride, why):
    assert why in _refused(_pickled(openai[0], tmp_path / "a.pt", _tensor(offset, size, stride, b"K\x01")))


def test_a_storage_has_the_bytes_that_it_says(openai, tmp_path):
    good = read_torchscript(_pickled(openai[0], tmp_path / "good.pt", _tensor(0, (1,), (1,), b"K\x01")))
    assert good["w"].shape == (1,)
    assert "expected 2 numbers" in _refused(_pickled(openai[0], tmp_path / "a.pt", _tensor(0, (1,), (1,), b"K\x02")))


def test_bombs_are_refused_by_their_directory(openai, tmp_path):
    bomb = _with(openai[0], tmp_path / "bomb.pt", zipfile.ZIP_DEFLATED, **{"data/0": b"\0" * 2**24})
    assert "is compressed, or larger" in _refused(bomb)
    assert "too many members, or two of one name" in _refused(_twice(openai[0], tmp_path / "twice.pt"))
    assert "is missing" in _refused(_with(openai[0], tmp_path / "less.pt", data__pkl=None))


def _twice(source, path):
    path.write_bytes(source.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"again")
    return path


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors", ""])
def test_no_other_reader_runs_an_archive_whatever_it_is_called(harmful, tmp_path, suffix):
    path, written = harmful
    renamed = tmp_path / f"weights{suffix}"
    renamed.write_bytes(path.read_bytes())
    with pytest.raises(Exception):  # noqa: B017  torch's kinds are its own
        load_tensors(renamed)
    prefixed = tmp_path / f"prefixed{suffix}"
    prefixed.write_bytes(b"\x80\x02" + path.read_bytes())  # a pickle by its first bytes, an archive by its last
    with pytest.raises(Exception):  # noqa: B017
        load_tensors(prefixed)
    assert not written.exists()


def test_the_oldest_format_of_torch_is_refused(tmp_path):
    with tarfile.open(tmp_path / "old.pt", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(_Shell())
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(ValueError, match="more than tensors, which is never run"):
        load_tensors(tmp_path / "old.pt")
