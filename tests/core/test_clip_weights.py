"""Loading weights: every format gives the same features, and what cannot be used is named."""

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from excel_core.errors import ModelError
from excel_core.models import clip_weights
from excel_core.models.clip import FrozenClip, check_plain_vit
from excel_core.models.clip_names import parse_clip_name
from excel_core.models.clip_weights import check_clip_file, clip_from_openai_state, load_clip
from tests.conftest import small_clip_model

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture
def known(monkeypatch):
    """open_clip knows a small plain model 'small' without QuickGELU."""
    monkeypatch.setattr(clip_weights, "clip_config", lambda model: CONFIG)
    real = open_clip.list_models
    monkeypatch.setattr(open_clip, "list_models", lambda: [*real(), "small"])


def _image_features(clip: FrozenClip):
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return clip.model.encode_image(image)


def _archive(model, path):
    """A TorchScript archive as OpenAI's: traced, with its three number entries beside the weights."""
    traced = torch.jit.trace(_Both(model), (torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.long)), check_trace=False)
    traced.save(str(path))


class _Both(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        for name, child in model.named_children():
            setattr(self, name, child)
        for name, parameter in model.named_parameters(recurse=False):
            setattr(self, name, parameter)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(1))

    def forward(self, image, text):
        return self.visual(image).sum() + self.token_embedding(text).sum() + self.context_length


@pytest.mark.filterwarnings("ignore")  # tracing warns about the tower's shape checks
def test_openais_archive_gets_quickgelu_whatever_the_name_says(known, tmp_path):
    model = small_clip_model(quick_gelu=True).eval()
    _archive(model, tmp_path / "openai.pt")
    loaded = load_clip(f"small:{tmp_path / 'openai.pt'}")
    torch.testing.assert_close(_image_features(loaded), _image_features(FrozenClip(model, None)))
    plain = small_clip_model(quick_gelu=False).eval()
    assert not torch.allclose(_image_features(loaded), _image_features(FrozenClip(plain, None)))


def test_state_dicts_and_safetensors(known, tmp_path):
    model = small_clip_model(seed=3, quick_gelu=False).eval()
    expected = _image_features(FrozenClip(model, None))
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "trained.pt")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "plain.safetensors")
    for name in ("trained.pt", "plain.safetensors"):
        torch.testing.assert_close(_image_features(load_clip(f"small:{tmp_path / name}")), expected)


def test_everything_that_was_not_in_the_file_is_there(known, tmp_path):
    """The model is made without values, and the file brings its weights alone."""
    model = small_clip_model(seed=3, quick_gelu=False).eval()
    torch.save(model.state_dict(), tmp_path / "small.pt")
    loaded = load_clip(f"small:{tmp_path / 'small.pt'}").model
    for tensors in ("named_parameters", "named_buffers"):
        expected, found = dict(getattr(model, tensors)()), dict(getattr(loaded, tensors)())
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    tokens = open_clip.tokenize(["a dog", "two green bottles on a table"])
    with torch.inference_mode():
        torch.testing.assert_close(loaded.encode_text(tokens), model.encode_text(tokens))


def test_weights_of_another_architecture(known, tmp_path):
    state = small_clip_model().state_dict()
    state["visual.proj"] = state["visual.proj"][:, :8]
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"another architecture .*visual.proj: file has \(32, 8\), the model \(32, 16\)"):
        load_clip(f"small:{tmp_path / 'other.pt'}")
    with pytest.raises(ModelError, match="another architecture"):  # before any work, too
        check_clip_file(f"small:{tmp_path / 'other.pt'}")
    torch.save({f"_orig_mod.module.{key}": value for key, value in small_clip_model().state_dict().items()}, tmp_path / "it.pt")
    check_clip_file(f"small:{tmp_path / 'it.pt'}")


class _Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_pickled_code_is_never_run(known, tmp_path, capsys):
    torch.save({"state_dict": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="not readable as weights") as refused:
        load_clip(f"small:{tmp_path / 'evil.pt'}")
    assert "\n" not in str(refused.value)
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(ModelError, match="not readable as weights"):
        load_clip(f"small:{tmp_path / 'junk.safetensors'}")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-17:openai", "unknown CLIP model 'ViT-B-17'; excel-tiny, or one of open_clip's: .*ViT-B-16"),
        ("ViT-B-16", "names no weights; write ViT-B-16:TAG or ViT-B-16:FILE"),
        ("ViT-B-16:nowhere", "has no weights 'nowhere'; valid: openai"),
        ("ViT-B-16:/nowhere/x.pt", "'/nowhere/x.pt' do not exist"),
    ],
)
def test_names_are_refused_before_anything_loads(name, message):
    with pytest.raises(ModelError, match=message):
        parse_clip_name(name)


def test_other_towers_are_named():
    with pytest.raises(ModelError, match="vision tower is ModifiedResNet; excel needs .* plain VisionTransformer"):
        check_plain_vit(open_clip.create_model("RN50", pretrained=None), "RN50")
    with pytest.raises(ModelError, match="coca_ViT-B-32 is not a plain CLIP: it has .*multimodal_cfg"):
        load_clip("coca_ViT-B-32:laion2b_s13b_b90k")
    pooled = small_clip_model()
    pooled.visual.pool_type = "avg"
    with pytest.raises(ModelError, match="pooling by 'avg' instead of the class token"):
        check_plain_vit(pooled, "pooled")


def test_no_network_says_which_file_to_put_where(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("open_clip.pretrained.download_pretrained", offline)
    with pytest.raises(ModelError, match=r"fetch .*ViT-B-16.* elsewhere and pass it as --clip ViT-B-16:/path"):
        load_clip("ViT-B-16:openai")


def test_openai_state_sizes_are_read_from_the_weights(tmp_path):
    from open_clip.model import CLIP

    cam_model = {"image_size": 32, "layers": 2, "width": 64, "head_width": 64, "patch_size": 8}
    text = {"context_length": 20, "vocab_size": 100, "width": 64, "heads": 1, "layers": 1}
    torch.manual_seed(0)
    model = CLIP(24, cam_model, text, quick_gelu=True).eval()
    clip = clip_from_openai_state(dict(model.state_dict()), quick_gelu=True)
    assert (clip.patch, clip.width, clip.heads, clip.joint_width, len(clip.blocks)) == (8, 64, 1, 24, 2)
    torch.testing.assert_close(_image_features(clip), _image_features(FrozenClip(model, None)))
