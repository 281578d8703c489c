"""The snippets of transformers' documentation, with nothing changed but their imports and where checkpoints are.

They are read from the installed transformers: its own words. Weights are random and the encoders small: what
the weights decide (a loss, a class) is run and not compared.
"""

import ast
import doctest
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.perceiver import modeling_perceiver as hf
from transformers.models.perceiver.configuration_perceiver import PerceiverConfig as TheirConfig

import perceiver_core
from perceiver_core.config import PUBLISHED

AUTO = {"AutoTokenizer": "PerceiverTokenizer", "AutoImageProcessor": "PerceiverImageProcessor"}

#: The same snippets as older versions of the documentation have them.
OLD = {
    "PerceiverForMaskedLM of 4.34": """
        >>> from transformers import PerceiverTokenizer, PerceiverForMaskedLM
        >>> import torch
        >>> tokenizer = PerceiverTokenizer.from_pretrained("deepmind/language-perceiver")
        >>> model = PerceiverForMaskedLM.from_pretrained("deepmind/language-perceiver")
        >>> text = "This is an incomplete sentence where some words are missing."
        >>> encoding = tokenizer(text, padding="max_length", return_tensors="pt")
        >>> # mask " missing.". Note that the model performs much better if the masked span starts with a space.
        >>> encoding.input_ids[0, 52:61] = tokenizer.mask_token_id
        >>> inputs, input_mask = encoding.input_ids.to("cpu"), encoding.attention_mask.to("cpu")
        >>> outputs = model(inputs=inputs, attention_mask=input_mask)
        >>> logits = outputs.logits
        >>> masked_tokens_predictions = logits[0, 51:61].argmax(dim=-1)
        >>> len(tokenizer.decode(masked_tokens_predictions)) > 0
        True
        """,
    "PerceiverForImageClassificationLearned of 4.14": """
        >>> from transformers import PerceiverFeatureExtractor, PerceiverForImageClassificationLearned
        >>> feature_extractor = PerceiverFeatureExtractor.from_pretrained("deepmind/vision-perceiver-learned")
        >>> model = PerceiverForImageClassificationLearned.from_pretrained("deepmind/vision-perceiver-learned")
        >>> inputs = feature_extractor(images=image, return_tensors="pt").pixel_values
        >>> outputs = model(inputs=inputs)
        >>> logits = outputs.logits
        >>> list(logits.shape)
        [1, 1000]
        >>> predicted_class_idx = logits.argmax(-1).item()
        >>> print("Predicted class:", model.config.id2label[predicted_class_idx])
        Predicted class: ...
        """,
}
NEW = {
    "PerceiverConfig": TheirConfig.__doc__,
    "PerceiverModel": hf.PerceiverModel.forward.__doc__,
    **{f"{name}": getattr(hf, name).forward.__doc__ for name in hf.__all__ if "For" in name},
}


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """Folders in place of the six published checkpoints: their shapes of input and output, small in between."""
    root = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    for name, published in PUBLISHED.items():
        small = {"num_latents": 4, "d_latents": 32, "num_blocks": 1, "num_self_attends_per_block": 1}
        channels = {"qk_channels": None, "v_channels": None, "num_cross_attention_heads": 1}
        config = published.config.replaced(**small, **channels)
        getattr(perceiver_core, published.architecture)(config).save_pretrained(root / name)
    return root


@pytest.fixture
def small_models(monkeypatch):
    """PerceiverConfig() without arguments is a model of 200 million weights: those of the snippets are smaller."""
    whole = perceiver_core.PerceiverConfig

    def small(**changes):
        return whole(**{"num_latents": 4, "num_self_attends_per_block": 1, **changes})

    monkeypatch.setattr("perceiver_core.config.PerceiverConfig", small)


def ours(source, hub):
    """A snippet's statement with our imports and our checkpoints."""
    for name in PUBLISHED:
        source = source.replace(f'"{name}"', repr(str(hub / name)))
    if source.startswith("from transformers"):
        names = ast.parse(source).body[0].names
        aliased = (f"{AUTO[n.name]} as {n.name}" if n.name in AUTO else n.name for n in names)
        return f"from perceiver_core import {', '.join(aliased)}"
    is_download = "httpx" in source or "requests" in source or "response" in source
    return "pass" if is_download else source  # `image` is there


@pytest.mark.filterwarnings("ignore:.*freshly initialised:UserWarning")  # a decoder for a text classifier
@pytest.mark.parametrize("name", [*NEW, *OLD])
def test_snippet(name, hub, small_models):
    examples = doctest.DocTestParser().get_examples({**NEW, **OLD}[name])
    assert len(examples) > 2
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    scope = {"image": Image.fromarray(pixels)}
    compared = 0
    for example in examples:
        source = ours(example.source, hub)
        want = example.want.replace("```", "").strip()
        if re.fullmatch(r"\[[\d, ]+\]|True", want):
            assert repr(eval(source, scope)) == want
            compared += 1
        else:
            exec(source, scope)
    assert compared or name == "PerceiverConfig"
    assert not any(
        module.__name__.startswith("transformers") for module in scope.values() if hasattr(module, "__path__")
    )


README = (Path(__file__).parent.parent.parent / "README.md").read_text()
BLOCKS = [b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "from perceiver_core" in b]


@pytest.mark.filterwarnings("ignore:.*freshly initialised:UserWarning")
@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.split("\n", 1)[0].split("import ")[1])
def test_the_readmes_snippets(code, hub):
    scope = {
        "torch": torch,
        "LANGUAGE": hub / "deepmind/language-perceiver",
        "FLOW": hub / "deepmind/optical-flow-perceiver",
        "images": torch.rand(1, 16, 3, 32, 32),
        "audio": torch.zeros(1, 30_720, 1),
        "frames": torch.rand(1, 2, 3, 50, 60),
    }
    exec(ours(code, hub) if "checkpoint.load" in code else code, scope)
    if "flow" in scope:
        assert scope["flow"].shape == (1, 50, 60, 2)
    if "logits" in scope:
        assert scope["logits"].shape == (1, 9, 262)
    if "everything" in scope:
        assert scope["everything"]["image"].shape == (1, 16 * 32 * 32, 3)
    if "first_and_last" in code:
        whole = scope["everything"]["image"].unflatten(1, (16, 32, 32))
        torch.testing.assert_close(scope["first_and_last"], whole[:, [0, 15]], rtol=1e-4, atol=1e-5)
    assert {"flow", "logits", "everything", "model"} & scope.keys()


def test_the_readme_has_snippets():
    assert len(BLOCKS) == 5
