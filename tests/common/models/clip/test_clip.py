"""CLIP against open_clip and transformers, with random weights in each published layout. Nothing is fetched."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPModel

from common.errors import CheckpointError
from common.models.clip.clip import ClipAddress, check_clip, load_clip
from common.models.clip.network import Clip, ClipShape
from common.models.clip.preprocess import prepared
from tests.clips import LENGTH, PICTURE, TEXT, VOCABULARY, random_clip, save_open_clip

CPU = torch.device("cpu")
TEXTS = ["a red cat", "", "the cat on the acat, " * 5, "Ünïcode 12 &amp; 't"]  # the third is cut
AddressOf = Callable[..., ClipAddress]


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def expected(model: nn.Module, vocabulary: Path) -> tuple[Tensor, Tensor]:
    """Unit vectors of pictures and texts, by open_clip's network and its tokenizer."""
    tokens = open_clip.SimpleTokenizer(str(vocabulary), context_length=LENGTH)(TEXTS)
    with torch.no_grad():
        return (
            model.encode_image(prepared(pictures(), 32), normalize=True),
            model.encode_text(tokens, normalize=True),
        )


def require_equal(address: ClipAddress, model: nn.Module, vocabulary: Path) -> None:
    clip = load_clip(address, CPU)
    of_pictures, of_texts = expected(model, vocabulary)
    assert_close(clip.embed_pictures(pictures()), of_pictures, atol=1e-6, rtol=0)
    assert_close(clip.embed_texts(TEXTS), of_texts, atol=1e-6, rtol=0)
    assert clip.scale == pytest.approx(float(model.logit_scale.detach().exp()))


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_an_open_clip_file_gives_the_vectors_of_open_clip(
    quick_gelu: bool, tmp_path: Path, address_of: AddressOf, vocabulary: Path
) -> None:
    model = random_clip(quick_gelu)
    require_equal(address_of(save_open_clip(model, tmp_path, quick_gelu)), model, vocabulary)


def test_the_wrong_activation_would_give_other_vectors(
    tmp_path: Path, address_of: AddressOf, vocabulary: Path
) -> None:
    model, found = random_clip(True), []
    for quick_gelu in (True, False):
        path = save_open_clip(model, tmp_path, quick_gelu)  # its settings have the last word
        found += [load_clip(address_of(path, activation="gelu"), CPU).embed_pictures(pictures())]
    assert (found[0] - found[1]).abs().max() > 0.001


@pytest.mark.parametrize("nested", [True, False])
def test_the_state_dict_of_openai_is_known_by_its_three_numbers(
    nested: bool, tmp_path: Path, address_of: AddressOf, vocabulary: Path
) -> None:
    model = random_clip(quick_gelu=True)
    numbers = {"input_resolution": 32, "context_length": LENGTH, "vocab_size": VOCABULARY}
    state = model.state_dict() | {name: torch.tensor(number) for name, number in numbers.items()}
    torch.save({"state_dict": state} if nested else state, tmp_path / "clip.pt")
    require_equal(address_of(tmp_path / "clip.pt"), model, vocabulary)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_archive_of_openai_is_read_without_running_it(
    dtype: torch.dtype, tmp_path: Path, address_of: AddressOf, vocabulary: Path
) -> None:
    model = random_clip(quick_gelu=True).to(dtype).float()  # numbers that the archive can hold
    for name, number in (("input_resolution", 32), ("context_length", LENGTH), ("vocab_size", VOCABULARY)):
        vars(model).pop(name, None)
        model.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (pictures(), torch.zeros(3, LENGTH, dtype=torch.long)), check_trace=False)
    traced.to(dtype).save(str(tmp_path / "ViT.pt"))
    require_equal(address_of(tmp_path / "ViT.pt"), model.float(), vocabulary)


def test_an_archive_that_names_other_code_is_refused(tmp_path: Path, address_of: AddressOf) -> None:
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/constants.pkl", pickle.dumps(()))
        archive.writestr("evil/data.pkl", pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="damaged, or holds Python objects other than tensors"):
        load_clip(address_of(path), CPU)


class Evil:
    def __reduce__(self):
        return pytest.fail, ("it was run",)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_a_folder_of_transformers_gives_the_vectors_of_transformers(
    act: str, as_folder: bool, tmp_path: Path, address_of: AddressOf
) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "hidden_act": act}
    config = CLIPConfig(
        vision_config=sizes | {"num_attention_heads": 4, "image_size": 32, "patch_size": 8},
        text_config=sizes
        | {"num_attention_heads": 6, "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH}
        | {"eos_token_id": VOCABULARY - 1, "bos_token_id": VOCABULARY - 2, "pad_token_id": 0},
        projection_dim=24,
    )
    model = CLIPModel(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "clip")
    clip = load_clip(address_of(tmp_path / "clip" / ("" if as_folder else "model.safetensors")), CPU)
    tokens = clip._tokenizer(TEXTS)
    with torch.no_grad():
        found = model(input_ids=tokens, pixel_values=prepared(pictures(), 32))
    assert_close(clip.embed_pictures(pictures()), found.image_embeds, atol=1e-6, rtol=0)
    assert_close(clip.embed_texts(TEXTS), found.text_embeds, atol=1e-6, rtol=0)
    assert clip.name == f"ViT-2x48/8 at 32 px, {act}"
    assert check_clip(address_of(tmp_path / "clip")).name == "ViT-2x48/8 at 32 px"


def test_files_of_float16_are_computed_in_float32(tmp_path: Path, address_of: AddressOf, vocabulary: Path) -> None:
    model = random_clip(quick_gelu=False).half()
    require_equal(address_of(save_open_clip(model, tmp_path, False)), model.float(), vocabulary)


def test_a_file_that_does_not_say_its_activation_is_refused_until_the_recipe_does(
    tmp_path: Path, address_of: AddressOf, vocabulary: Path
) -> None:
    model = random_clip(quick_gelu=False)
    path = save_open_clip(model, tmp_path, False)
    (tmp_path / "open_clip_config.json").unlink()
    for look in (check_clip, lambda address: load_clip(address, CPU)):
        with pytest.raises(CheckpointError, match=r"set reward_models\.clip_activation=quick_gelu for weights of"):
            look(address_of(path))
    require_equal(address_of(path, activation="gelu"), model, vocabulary)


def test_what_is_no_clip_is_refused_with_what_it_lacks(tmp_path: Path, address_of: AddressOf) -> None:
    state = random_clip(True).state_dict()
    del state["transformer.resblocks.1.ln_1.bias"]
    torch.save(state, tmp_path / "cut.pt")
    torch.save({"a": torch.zeros(3), "b": torch.zeros(2)}, tmp_path / "other.pt")
    for look in (check_clip, lambda address: load_clip(address, CPU)):
        with pytest.raises(CheckpointError, match=r"missing keys: 1 \(transformer\.resblocks\.1\.ln_1\.bias\)"):
            look(address_of(tmp_path / "cut.pt", activation="gelu"))
        with pytest.raises(CheckpointError, match=r"are no CLIP .*visual\.conv1\.weight is missing"):
            look(address_of(tmp_path / "other.pt"))


def test_weights_that_are_missing_are_said_with_the_command_to_get_them(address_of: AddressOf) -> None:
    address = address_of(Path("checkpoints/HPS.pt"), obtain_from="hf://xswu/HPSv2/HPS.pt")
    for look in (check_clip, lambda address: load_clip(address, CPU)):
        with pytest.raises(
            CheckpointError, match=r"run this: hf download xswu/HPSv2 HPS\.pt --local-dir checkpoints"
        ):
            look(address)


def test_nan_is_refused(tmp_path: Path, address_of: AddressOf) -> None:
    model = random_clip(True)
    with torch.no_grad():
        model.visual.proj[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"NaN or infinity in 1 \(visual\.proj\)"):
        load_clip(address_of(save_open_clip(model, tmp_path, True)), CPU)


@pytest.mark.parametrize(
    ("name", "picture", "text", "embedding", "said"),
    [
        ("ViT-B-32", (768, 12, 12), (512, 12, 8), 512, "ViT-B/32"),
        ("ViT-L-14", (1024, 24, 16), (768, 12, 12), 768, "ViT-L/14"),
        ("ViT-H-14", (1280, 32, 16), (1024, 24, 16), 1024, "ViT-H/14"),
        ("ViT-g-14", (1408, 40, 16), (1024, 24, 16), 1024, "ViT-g/14"),
        ("ViT-bigG-14", (1664, 48, 16), (1280, 32, 20), 1280, "ViT-bigG/14"),
        ("ViT-L-14-336", (1024, 24, 16), (768, 12, 12), 768, "ViT-L/14 at 336 px"),
    ],
)
def test_the_published_sizes_are_read_off_the_shapes(
    name: str, picture: tuple, text: tuple, embedding: int, said: str
) -> None:
    with torch.device("meta"):
        config = open_clip.get_model_config(name)
        model = open_clip.CLIP(**config)
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        shape = ClipShape.of(shapes)
        ours = {key: tuple(tensor.shape) for key, tensor in Clip(shape, "gelu").state_dict().items()}
    assert ours == shapes
    assert (shape.picture.width, shape.picture.layers, shape.picture.heads) == picture
    assert (shape.text.width, shape.text.layers, shape.text.heads) == text
    assert (shape.embedding, shape.context_length, shape.vocabulary) == (embedding, 77, 49408)
    assert shape.name == said


def test_settings_that_describe_no_clip_are_refused(tmp_path: Path, address_of: AddressOf) -> None:
    path = save_open_clip(random_clip(True), tmp_path, True)
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"vision_cfg": PICTURE, "text_cfg": 3}})
    )
    with pytest.raises(CheckpointError, match=r"open_clip_config\.json, beside .* describes no CLIP"):
        check_clip(address_of(path))
    config = {"vision_cfg": PICTURE | {"head_width": 40}, "text_cfg": TEXT}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(CheckpointError, match=r"visual\.transformer is 128 wide, which 3 heads do not divide"):
        check_clip(address_of(path))
