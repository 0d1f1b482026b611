"""AdapterHub's files and modules against the real thing: the library adapters, in its own environment (`make peer`).

One process of that environment answers all tests, because it takes long to start. The models are tiny and random, with
weights large enough that a misplaced or missing tensor would show.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path

import models
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.architectures import base_model_of
from adapters_lesson.exchange.adapterhub import export_adapterhub, import_adapterhub
from adapters_lesson.exchange.adapterhub_format import DEFAULTS, PRESETS, REQUIRED
from adapters_lesson.insertion import adapter_config, head_parameters, insert_adapters, remove_adapters
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.transformer import SmallTransformer, from_bert

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".peer" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not (ROOT / ".peer" / ".made").exists(), reason="the library adapters is not here: `make peer` installs it"
)

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "silu": "swish", "tanh": "tanh", "identity": "linear"}
FAMILIES = ("bert", "roberta", "distilbert", "gpt2", "llama", "mistral")
SEQUENCE_HEADS = {
    "bert": hf.BertForSequenceClassification,
    "roberta": hf.RobertaForSequenceClassification,
    "distilbert": hf.DistilBertForSequenceClassification,
    "gpt2": hf.GPT2ForSequenceClassification,
    "llama": hf.LlamaForSequenceClassification,
}


class Library:
    """tests/peer/library.py in its own process: ``library.make(…)`` is the method of that name there."""

    def __init__(self):
        self.process = subprocess.Popen(
            [PEER, ROOT / "tests" / "peer" / "library.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def __getattr__(self, do):
        def ask(**request):
            print(json.dumps({"do": do, **request}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
            assert line, f"the library's process has ended with {self.process.wait()}"
            answer = json.loads(line)
            assert "error" not in answer, answer["error"]
            return answer["answer"]

        return ask


@pytest.fixture(scope="module")
def library():
    library = Library()
    yield library
    library.process.stdin.close()
    assert library.process.wait(timeout=60) == 0


def settings_of(model):
    """The config's values that are not the defaults: what the other version of transformers has to be told."""
    told = model.config.to_diff_dict()
    return {k: v for k, v in told.items() if k not in ("transformers_version", "dtype", "rope_parameters")}


def hand_over(library, model, folder, model_class=None):
    """Let the library make the same model, from its bare weights."""
    weights = folder / "weights.safetensors"
    save_file({key: tensor.clone().contiguous() for key, tensor in model.state_dict().items()}, weights)
    library.make(model_class=model_class or type(model).__name__, config=settings_of(model), weights=str(weights))


def asked(model):
    """The inputs of ``models.output`` as JSON takes them: two texts, the second with padding."""
    return {key: value.tolist() for key, value in models.inputs(model).items()}


def assert_same_output(library, model):
    torch.testing.assert_close(models.output(model), torch.tensor(library.output(inputs=asked(model))), **TOLERANCE)


def trained(model, config, name="default"):
    """Adapters that look trained, in ``model``."""
    for adapter in insert_adapters(model, config, name):
        models.randomise(adapter)
    return model


def with_head(family, seed=0):
    torch.manual_seed(seed)
    config = models.BASES[family]().config
    config.num_labels, config.pad_token_id = 3, 0
    config.label2id, config.id2label = {"bad": 0, "fair": 1, "good": 2}, {0: "bad", 1: "fair", 2: "good"}
    model = SEQUENCE_HEADS[family](config)
    models.randomise(model)
    return model.eval()


def silent(answer):
    """Whether the library found every tensor and had a place for every tensor; it only logs such things."""
    complaints = [line for line in answer["said"] if "could not be" in line or "Unable" in line or "not match" in line]
    return not complaints and not any(answer["info"].values())


def test_the_versions_are_those_that_the_course_names(library):
    versions = library.versions()
    assert versions["adapters"] == "1.3.0"
    assert versions["transformers"].startswith("4.57")


def test_our_table_of_settings_is_the_librarys(library):
    defaults = library.defaults()
    assert dict.fromkeys(REQUIRED) | DEFAULTS == defaults
    for preset, settings in PRESETS.items():
        assert settings.items() <= library.presets()[preset].items()


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_agree_on_a_grid(library, family, tmp_path):
    """(c) Weights go from our modules into theirs in memory; adapterhub.py has no part in it."""
    model, presets = models.make(family), library.presets()
    hand_over(library, model, tmp_path)
    cases, tensors, ours = [], {}, []
    # A Latin square: every width, activation and scaling meets every placement, and most meet each other.
    options = itertools.product(PLACEMENTS, enumerate((1, 5, 16)), enumerate(ACTIVATIONS))
    for case, (placement, (i, m), (j, activation)) in enumerate(options):
        scaling = (0.5, 1.0, 4.0)[(i + j) % 3]
        layers = (0, 2) if case % 2 else None
        settings = AdapterConfig(m, placement=placement, activation=activation, scaling=scaling, layers=layers)
        torch.manual_seed(case)
        adapters = insert_adapters(model, settings)
        for n, adapter in enumerate(adapters):
            models.randomise(adapter)
            for their, our in (("down", adapter.down_project), ("up", adapter.up_project)):
                tensors[f"{case}.{n}.{their}.weight"] = our.weight.detach().clone()
                tensors[f"{case}.{n}.{their}.bias"] = our.bias.detach().clone()
        ours.append((len(adapters), models.output(model)))
        remove_adapters(model)
        theirs = {"reduction_factor": models.WIDTH / (m + 0.5), "non_linearity": ACTIVATIONS[activation]}
        theirs |= {"scaling": scaling, "leave_out": [] if layers is None else [1]}
        cases.append({"id": case, "config": presets[PLACEMENTS[placement].adapterhub] | theirs})
    save_file(tensors, tmp_path / "adapters.safetensors")
    answers = library.grid(cases=cases, weights=str(tmp_path / "adapters.safetensors"), inputs=asked(model))
    bare = models.output(model)
    for (count, output), answer in zip(ours, answers, strict=True):
        assert count == len(answer["modules"])
        assert not torch.allclose(output, bare, atol=1e-3), "an adapter that changes nothing would prove nothing"
        torch.testing.assert_close(output, torch.tensor(answer["output"]), **TOLERANCE)


@pytest.mark.parametrize(
    ("family", "placement"), [(f, p) for i, f in enumerate(FAMILIES) for j, p in enumerate(PLACEMENTS) if (i + j) % 3]
)
def test_the_library_loads_what_we_export(library, family, placement, tmp_path):
    """(a)"""
    model = models.make(family)
    hand_over(library, model, tmp_path)
    config = AdapterConfig(7, placement=placement, activation="tanh", scaling=2.0, layers=(0, 2), dropout=0.1)
    export_adapterhub(trained(model, config, "film"), tmp_path / "film", "film")
    answer = library.load(folder=str(tmp_path / "film"))
    assert answer["name"] == "film"
    assert "film" in answer["active"]
    assert silent(answer)
    assert_same_output(library, model)


def test_a_tensor_that_the_library_misses_would_be_seen(library, tmp_path):
    """It merely logs that, and goes on with random weights."""
    model = models.make("bert")
    hand_over(library, model, tmp_path)
    file = export_adapterhub(trained(model, AdapterConfig(4)), tmp_path / "a") / "adapter.safetensors"
    tensors = load_file(file)
    save_file(dict(list(tensors.items())[1:]), file)
    assert not silent(library.load(folder=str(tmp_path / "a")))


def test_under_a_name_that_is_taken_the_library_keeps_the_old_settings(library, tmp_path):
    """Hence the advice of export_adapterhub to name every adapter for itself; or to load it under another name."""
    model = models.make("bert")
    hand_over(library, model, tmp_path)
    export_adapterhub(trained(model, AdapterConfig(4, scaling=1.0)), tmp_path / "a")
    remove_adapters(model)
    export_adapterhub(trained(model, AdapterConfig(4, scaling=2.0)), tmp_path / "b")
    library.load(folder=str(tmp_path / "a"))
    assert silent(library.load(folder=str(tmp_path / "b")))
    assert not torch.allclose(models.output(model), torch.tensor(library.output(inputs=asked(model))), atol=1e-3)
    assert silent(library.load(folder=str(tmp_path / "b"), load_as="b"))
    assert_same_output(library, model)


@pytest.mark.parametrize("m", [1, 2, 3, 6, 7, 11, 15, 20])
@pytest.mark.filterwarnings("ignore:bottleneck_dim=20")
def test_every_width_survives_the_reduction_factor(library, m, tmp_path):
    model = models.make("bert")
    hand_over(library, model, tmp_path)
    export_adapterhub(trained(model, AdapterConfig(m)), tmp_path / "a")
    assert silent(library.load(folder=str(tmp_path / "a")))
    assert_same_output(library, model)


@pytest.mark.parametrize(
    ("family", "placement", "safe"),
    [(f, p, (i + j) % 2 == 0) for i, f in enumerate(FAMILIES) for j, p in enumerate(PLACEMENTS)],
)
def test_we_import_what_the_library_saves(library, family, placement, safe, tmp_path):
    """(b)"""
    model = models.make(family)
    hand_over(library, model, tmp_path)
    library.add(name="theirs", config=f"{PLACEMENTS[placement].adapterhub}[reduction_factor=3,leave_out=[1]]", seed=1)
    files = library.save(folder=str(tmp_path / "theirs"), name="theirs", safe=safe)
    assert files == sorted(["adapter_config.json", "adapter.safetensors" if safe else "pytorch_adapter.bin"])
    bare = models.output(model)
    assert import_adapterhub(model, tmp_path / "theirs") == "theirs"
    config = adapter_config(model, "theirs")
    assert (config.placement, config.bottleneck_dim, config.layers) == (placement, 5, (0, 2))
    assert not torch.allclose(models.output(model), bare, atol=1e-3)
    assert_same_output(library, model)


def test_there_and_back_again_is_the_same_bit_for_bit(library, tmp_path):
    model = models.make("roberta")
    hand_over(library, model, tmp_path)
    export_adapterhub(trained(model, AdapterConfig(4, placement="pfeiffer")), tmp_path / "ours")
    library.load(folder=str(tmp_path / "ours"))
    library.save(folder=str(tmp_path / "theirs"), name="default", safe=False)
    other = models.make("roberta")
    import_adapterhub(other, tmp_path / "theirs", "again")
    assert torch.equal(models.output(other), models.output(model))


def test_a_small_transformer_is_a_bert_to_the_library(library, tmp_path):
    bert = models.make("bert")
    small = models.small()
    small.load_state_dict(from_bert(bert.state_dict()), strict=False)
    hand_over(library, bert, tmp_path)
    export_adapterhub(trained(small, AdapterConfig(3, placement="pfeiffer"), "one"), tmp_path / "one", "one")
    assert silent(library.load(folder=str(tmp_path / "one")))
    assert_same_output(library, small)
    library.add(name="two", config="double_seq_bn[reduction_factor=2]", seed=3)
    library.save(folder=str(tmp_path / "two"), name="two", safe=True)
    import_adapterhub(small, tmp_path / "two")
    assert_same_output(library, small)
    assert isinstance(small, SmallTransformer)


@pytest.mark.parametrize("family", SEQUENCE_HEADS)
def test_a_head_goes_along_both_ways(library, family, tmp_path):
    model, fresh = with_head(family), with_head(family)
    with torch.no_grad():
        for parameter in head_parameters(model):
            parameter.normal_(std=0.5)  # trained, that is another one than the library's model begins with
    hand_over(library, fresh, tmp_path)
    export_adapterhub(trained(model, AdapterConfig(4), "film"), tmp_path / "film", "film")
    assert silent(library.load(folder=str(tmp_path / "film")))
    assert_same_output(library, model)
    assert library.labels() == {"0": "bad", "1": "fair", "2": "good"}
    library.add(name="theirs", config="seq_bn[reduction_factor=4]", seed=2)
    library.save(folder=str(tmp_path / "theirs"), name="theirs", safe=False)
    assert (tmp_path / "theirs" / "pytorch_model_head.bin").exists()
    fresh.config.id2label = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    import_adapterhub(fresh, tmp_path / "theirs")
    assert_same_output(library, fresh)
    assert fresh.config.id2label == {0: "bad", 1: "fair", 2: "good"}


def test_the_librarys_flexible_heads_take_ours_too(library, tmp_path):
    """Its BertAdapterModel turns the head of a BertForSequenceClassification into one of its own."""
    model = trained(with_head("bert"), AdapterConfig(4), "film")
    export_adapterhub(model, tmp_path / "film", "film")
    remove_adapters(model)
    hand_over(library, base_model_holder(model), tmp_path, "BertAdapterModel")
    library.load(folder=str(tmp_path / "film"))
    import_adapterhub(model, tmp_path / "film")
    assert_same_output(library, model)


def base_model_holder(model):
    """The base model under the names that it has in a model with a head, and no head."""

    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert, self.config = base_model_of(model), model.config

    return Holder()


def test_a_flexible_head_of_the_library_is_left_out_with_a_warning(library, tmp_path):
    model = with_head("bert")
    export_adapterhub(trained(model, AdapterConfig(4), "film"), tmp_path / "film", "film")
    remove_adapters(model)
    hand_over(library, base_model_holder(model), tmp_path, "BertAdapterModel")
    library.load(folder=str(tmp_path / "film"))
    library.save(folder=str(tmp_path / "theirs"), name="film", safe=True)
    before = model.classifier.weight.clone()
    with pytest.warns(UserWarning, match="the head of a BertAdapterModel, which does not fit"):
        import_adapterhub(model, tmp_path / "theirs")
    assert torch.equal(model.classifier.weight, before)
    assert_same_output(library, model)


def test_a_language_models_tied_head_is_the_base_models(library, tmp_path):
    model = models.make("gpt2_head")
    hand_over(library, model, tmp_path)
    export_adapterhub(trained(model, AdapterConfig(4), "film"), tmp_path / "film", "film")
    assert not (tmp_path / "film" / "model_head.safetensors").exists()
    assert silent(library.load(folder=str(tmp_path / "film")))
    assert_same_output(library, model)
    library.add(name="theirs", config="par_bn[reduction_factor=4]", seed=2)
    files = library.save(folder=str(tmp_path / "theirs"), name="theirs", safe=True)
    assert "model_head.safetensors" in files  # the library writes the embeddings once more
    import_adapterhub(model, tmp_path / "theirs")
    assert_same_output(library, model)
    with pytest.raises(ValueError, match=r"lm_head\.weight is tied to the base model, and this is another base"):
        import_adapterhub(models.make("gpt2_head", seed=5), tmp_path / "theirs")


def test_what_the_library_alone_has_is_refused(library, tmp_path):
    model = models.make("bert")
    hand_over(library, model, tmp_path)
    before = models.snapshot(model)
    refused = {
        "seq_bn_inv[reduction_factor=4]": "inv_adapter",
        "compacter[reduction_factor=2,phm_dim=2]": "phm_layer=True",
        "seq_bn[use_gating=True]": "use_gating=True",
        "seq_bn[ln_after=True]": "ln_after=True",
        "seq_bn[scaling='learned']": "not 'learned'",
        "seq_bn[original_ln_before=False]": "original_ln_before=False",
        "seq_bn[residual_before_ln=False]": "residual_before_ln=False",
        "seq_bn[non_linearity='gelu_new']": "not 'gelu_new'",
        "lora": "no bottleneck adapter but 'lora'",
        "prefix_tuning": "no bottleneck adapter but 'prefix_tuning'",
        "mam": "no bottleneck adapter but 'union'",
        "seq_bn[cross_adapter=True]": "cross_adapter=True",
    }
    for number, (config, meant) in enumerate(refused.items()):
        name = f"number{number}"
        library.add(name=name, config=config, seed=0)
        library.save(folder=str(tmp_path / name), name=name, safe=False)  # prefix tuning shares tensors
        with pytest.raises(ValueError, match=meant):
            import_adapterhub(model, tmp_path / name)
        assert models.snapshot(model) == before


def test_the_files_look_like_the_librarys(library, tmp_path):
    """The same settings give the same keys, shapes and configuration, but for the way the width is written."""
    model = models.make("bert")
    hand_over(library, model, tmp_path)
    library.add(name="film", config="double_seq_bn[reduction_factor=4]", seed=0)
    library.save(folder=str(tmp_path / "theirs"), name="film", safe=True)
    import_adapterhub(model, tmp_path / "theirs")
    export_adapterhub(model, tmp_path / "ours", "film")
    ours, theirs = (load_file(tmp_path / side / "adapter.safetensors") for side in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    ours, theirs = (json.loads((tmp_path / side / "adapter_config.json").read_text()) for side in ("ours", "theirs"))
    assert theirs["config"].pop("reduction_factor") == 4
    assert ours["config"].pop("reduction_factor") == 16 / 4.5
    assert ours == theirs
