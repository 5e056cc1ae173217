"""The table of backbones, what they see, and the loading of published weights: every family by the real code."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.backbones import BACKBONES, InputSpec, network_input
from inference.bert import WordPiece, describe
from inference.errors import BundleError
from inference.findings import Side
from inference.frozen import LAYERS, FrozenBackbone, load_frozen, weights_file
from inference.heads import KLGrader
from training.embed_standins import as_transformers, write_standin


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("standins")
    return {name: write_standin(name, root / name) for name in BACKBONES}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, FrozenBackbone]:
    return {name: load_frozen(name, folder) for name, folder in folders.items()}


def images(backbone: FrozenBackbone, number: int = 2) -> torch.Tensor:
    noise = torch.rand((number, 1, 80, 70), generator=torch.Generator().manual_seed(1))
    return network_input(noise, backbone.input)


def waves(folder: Path) -> Path:
    """Weights that are the same everywhere and for ever."""
    (path,) = folder.glob("*.safetensors")
    state = {}
    for number, (name, values) in enumerate(sorted(load_file(path).items())):
        steps = torch.arange(values.numel(), dtype=torch.float64)
        one = float("orm" in name and name.endswith("weight"))
        state[name] = (0.5 * torch.sin(97.13 * steps + 31.7 * number) + one).float().view(values.shape)
    save_file(state, path)
    return folder


def test_terms_are_told_and_research_weights_are_not_for_service() -> None:
    assert all(entry.terms.licence for entry in BACKBONES.values())
    assert {name for name, entry in BACKBONES.items() if not entry.terms.deployed} == {"rad_dino", "biomedclip"}
    assert all(entry.terms.note for entry in BACKBONES.values() if not entry.terms.deployed)


def test_the_published_sizes_and_normalisations_are_in_the_table() -> None:
    rad_dino, biomedclip = BACKBONES["rad_dino"], BACKBONES["biomedclip"]
    assert (rad_dino.input.size, rad_dino.input.pad_to_square, rad_dino.features) == (518, True, 768)
    assert (rad_dino.input.mean[0], rad_dino.input.std[0]) == (0.5307, 0.2583)
    assert (biomedclip.input.size, biomedclip.features) == (224, 512)
    assert [round(value, 4) for value in biomedclip.input.mean] == [0.4815, 0.4578, 0.4082]


@pytest.mark.parametrize("name", ["rad_dino", "biomedclip"])
def test_what_gives_no_map_is_no_backbone_of_the_grader(name: str) -> None:
    with pytest.raises(BundleError, match="frozen"):
        KLGrader(name)


def test_a_tall_image_is_padded_where_asked_and_stretched_elsewhere() -> None:
    tall = torch.full((1, 1, 40, 20), 0.5)
    plain = InputSpec(40, (0.0,) * 3, (1.0,) * 3)
    padded = network_input(tall, InputSpec(40, (0.0,) * 3, (1.0,) * 3, pad_to_square=True))
    assert padded.shape == (1, 3, 40, 40)
    assert padded[0, 0, 20].tolist() == [0.0] * 10 + [0.5] * 20 + [0.0] * 10
    assert torch.allclose(network_input(tall, plain), torch.tensor(0.5))
    assert torch.allclose(network_input(tall, InputSpec(40, (0.5,) * 3, (0.25,) * 3)), torch.tensor(0.0), atol=1e-5)


def test_an_input_is_rebuilt_from_plain_values() -> None:
    spec = BACKBONES["biomedclip"].input
    assert InputSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    with pytest.raises(BundleError, match="again"):
        InputSpec.from_json({"size": 1})


@pytest.mark.parametrize("name", BACKBONES)
def test_every_family_loads_from_a_folder_and_gives_all_kinds_of_features(
    name: str, loaded: dict[str, FrozenBackbone]
) -> None:
    backbone = loaded[name]
    seen = images(backbone)
    pooled = backbone.features(seen)["pooled"]
    assert pooled.shape == (2, backbone.width)
    assert backbone.synthetic
    assert torch.allclose(pooled[1:], backbone.features(seen[1:])["pooled"], atol=1e-5)
    layers, patches = (backbone.features(seen, wanted) for wanted in ("layers", "patches"))
    assert torch.allclose(layers["pooled"], pooled, atol=1e-5)
    assert torch.allclose(patches["pooled"], pooled, atol=1e-5)
    assert layers["layers"].shape[0] == patches["patches"].shape[0] == 2
    if name in ("rad_dino", "biomedclip"):
        assert layers["layers"].shape[1:3] == (LAYERS, 2)
    if name == "rad_dino":
        assert torch.allclose(layers["layers"][:, -1, 0], pooled, atol=1e-5)
        assert torch.allclose(layers["layers"][:, -1, 1], patches["patches"].mean(dim=1), atol=1e-5)
        assert patches["patches"].shape[1] == (backbone.input.size // 14) ** 2


def test_rad_dino_answers_as_the_transformers_package_does(tmp_path: Path) -> None:
    # Expected: Dinov2Model of transformers 5.23.0 on the same weights and images.
    backbone = load_frozen("rad_dino", waves(write_standin("rad_dino", tmp_path)))
    seen = torch.sin(torch.arange(2 * 3 * 56 * 56, dtype=torch.float64) * 1.37).float().view(2, 3, 56, 56)
    found = backbone.features(seen, "layers")
    pooled = [[0.189420, -0.627077, 0.952466, -0.572816], [0.189894, -0.624790, 0.955632, -0.573564]]
    third = [[0.858525, -0.925259, -1.507978, -0.469703], [0.854532, -0.903021, -1.502084, -0.483523]]
    assert torch.allclose(found["pooled"][:, :4], torch.tensor(pooled), atol=1e-4)
    assert torch.allclose(found["layers"][:, -3, 1, :4], torch.tensor(third), atol=1e-4)
    patches = backbone.features(seen, "patches")["patches"][:, 4, :4]
    fourth = [[0.286410, -0.661827, 0.869417, -0.580693], [0.006842, -0.561199, 0.990932, -0.615585]]
    assert torch.allclose(patches, torch.tensor(fourth), atol=1e-4)


def test_rad_dino_also_loads_by_the_names_of_dinov2_itself(tmp_path: Path, loaded: dict[str, FrozenBackbone]) -> None:
    folder = write_standin("rad_dino", tmp_path)
    state = {name: values.clone() for name, values in loaded["rad_dino"].trunk.state_dict().items()}
    assert set(as_transformers(state)) == set(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    save_file(state | {"mask_token": torch.zeros(1, 32)}, folder / "backbone_compatible.safetensors")
    seen = images(loaded["rad_dino"])
    again = load_frozen("rad_dino", folder).features(seen)["pooled"]
    assert torch.allclose(again, loaded["rad_dino"].features(seen)["pooled"], atol=1e-6)


def test_the_text_tower_answers_as_open_clip_with_transformers_does(tmp_path: Path) -> None:
    # Expected: HFTextEncoder of open_clip 3.3.0 and BertTokenizer of transformers 5.23.0 on the same weights.
    backbone = load_frozen("biomedclip", waves(write_standin("biomedclip", tmp_path)))
    texts = [describe("L", 0), describe("R", 4), "Unknown words; körper difference"]
    assert backbone.text is not None
    tokens = backbone.text.tokenise(texts)
    first = [2, 44, 6, 14, 18, 37, 32, 43, 25, 22, 7, 21, 6, 24, 19, 8, 13, 31, 34, 33, 20, 42, 30, 7, 3, 0]
    second = [2, 44, 6, 14, 18, 37, 32, 43, 38, 22, 7, 21, 6, 24, 19, 12, 13, 23, 34, 5, 27, 30, 5, 40, 39, 5]
    assert tokens.shape == (3, 64)
    assert tokens[:2, :26].tolist() == [first, second]
    assert tokens[2, :8].tolist() == [2, 1, 1, 1, 1, 1, 3, 0]
    expected = [
        [-0.564504, -0.433660, 0.080839, 0.523820],
        [-0.566759, -0.435942, 0.080548, 0.525778],
        [-0.561253, -0.433429, 0.077845, 0.520250],
    ]
    assert torch.allclose(backbone.describe_all(texts)[:, :4], torch.tensor(expected), atol=1e-4)


def test_the_image_tower_answers_as_open_clip_does(folders: dict[str, Path], loaded: dict[str, FrozenBackbone]) -> None:
    from open_clip.timm_model import TimmModel

    config = json.loads((folders["biomedclip"] / "open_clip_config.json").read_text())["model_cfg"]
    vision = config["vision_cfg"]
    tower = TimmModel(
        vision["timm_model_name"], config["embed_dim"], vision["image_size"], pool=vision["timm_pool"], proj="linear"
    )
    # open_clip leaves timm's size of 224 px as it is: our folder's is 32.
    tower.trunk = type(tower.trunk)(img_size=32, embed_dim=192, depth=12, num_heads=3, num_classes=0)
    state = load_file(folders["biomedclip"] / "open_clip_model.safetensors")
    own = {n.removeprefix("visual."): values for n, values in state.items() if n.startswith("visual.")}
    tower.load_state_dict(own)
    seen = images(loaded["biomedclip"])
    with torch.inference_mode():
        assert torch.allclose(tower.eval()(seen), loaded["biomedclip"].features(seen)["pooled"], atol=1e-5)


def test_word_pieces_are_the_longest_that_there_are() -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "osteo", "##phy", "##phyte", "##s", ",", "o"]
    tokenise = WordPiece({word: number for number, word in enumerate(words)}, context=8)
    assert tokenise(["Osteophytes, x", "Ostéo"]).tolist() == [[2, 4, 6, 7, 8, 1, 3, 0], [2, 4, 3, 0, 0, 0, 0, 0]]
    assert tokenise(["o " * 20]).tolist() == [[2, 9, 9, 9, 9, 9, 9, 3]]
    with pytest.raises(BundleError, match=r"\[SEP\]"):
        WordPiece({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2})


def test_a_vocabulary_is_read_from_either_file(tmp_path: Path, folders: dict[str, Path]) -> None:
    lines = (folders["biomedclip"] / "vocab.txt").read_text().splitlines()
    vocabulary = {word: number for number, word in enumerate(lines)}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    one, other = (WordPiece.read(folder, 64) for folder in (folders["biomedclip"], tmp_path))
    assert one is not None and other is not None
    assert torch.equal(one([describe("R", 3)]), other([describe("R", 3)]))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="vocabulary"):
        WordPiece.read(tmp_path, 64)


@pytest.mark.parametrize("side", Side)
def test_descriptions_are_word_for_word(side: Side) -> None:
    name = {"L": "left", "R": "right"}[side]
    start = f"Weight-bearing frontal radiograph of the {name} knee. Kellgren-Lawrence grade"
    assert [describe(side, kl) for kl in range(5)] == [
        f"{start} 0: no osteophytes or joint space narrowing.",
        f"{start} 1: possible osteophytic lipping, doubtful narrowing.",
        f"{start} 2: definite osteophytes, possible narrowing.",
        f"{start} 3: multiple moderate osteophytes, definite narrowing, some sclerosis, possible deformity.",
        f"{start} 4: large osteophytes, marked narrowing, severe sclerosis, definite deformity.",
    ]
    with pytest.raises(ValueError, match="0 to 4"):
        describe(side, 5)


def test_without_a_vocabulary_there_is_only_the_image_tower(tmp_path: Path) -> None:
    folder = write_standin("biomedclip", tmp_path)
    (folder / "vocab.txt").unlink()
    backbone = load_frozen("biomedclip", folder)
    assert backbone.text is None
    with pytest.raises(BundleError, match=r"vocab\.txt"):
        backbone.describe_all(["x"])


def test_the_digest_follows_weights_and_configuration(tmp_path: Path) -> None:
    folder = write_standin("convnext_small", tmp_path)
    first = load_frozen("convnext_small", folder)
    assert load_frozen("convnext_small", folder).digest == first.digest
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "synthetic": False}))
    second = load_frozen("convnext_small", folder)
    assert (second.synthetic, second.digest == first.digest) == (False, False)
    state = load_file(folder / "model.safetensors")
    state["stem.0.bias"] += 1e-3
    save_file(state, folder / "model.safetensors")
    assert load_frozen("convnext_small", folder).digest not in (first.digest, second.digest)


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickled_weights_are_refused_and_it_is_said_how_to_convert_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02.")
    for given in (tmp_path, tmp_path / name):
        with pytest.raises(BundleError, match=r"safetensors only.*save_file.*weights_only=True"):
            weights_file(given)


def test_what_cannot_be_loaded_says_why(tmp_path: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(BundleError, match="unknown backbone 'vgg'"):
        load_frozen("vgg", tmp_path)
    with pytest.raises(BundleError, match=r"no \.safetensors"):
        load_frozen("rad_dino", tmp_path)
    with pytest.raises(BundleError, match=r"config\.json is of convnext_small"):
        load_frozen("efficientnet_b0", folders["convnext_small"])
    folder = write_standin("rad_dino", tmp_path)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(BundleError, match="no usable rad_dino"):
        load_frozen("rad_dino", folder)
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "b.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match=r"a\.safetensors, b\.safetensors"):
        load_frozen("rad_dino", folder)


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained", "pretrained_cfg"])
def test_a_configuration_cannot_make_timm_read_or_fetch(tmp_path: Path, option: str) -> None:
    folder = write_standin("mobilenetv2_035", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_args": {option: "x"}}))
    with pytest.raises(BundleError, match=option):
        load_frozen("mobilenetv2_035", folder)
    clip = write_standin("biomedclip", tmp_path / "clip")
    text = (clip / "open_clip_config.json").read_text()
    (clip / "open_clip_config.json").write_text(text.replace("vit_tiny_patch16_224", "hf-hub:someone/something"))
    with pytest.raises(BundleError, match="timm has no network"):
        load_frozen("biomedclip", clip)
