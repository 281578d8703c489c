"""Do the tests of the model notice? Injects one bug at a time into a copy of perceiver_core and runs them there.

    python -m tests.mutations [name ...]

Prints the first test that fails for each bug; exits with 1 if a bug is noticed by none. The first eight are those of
a study in which the usual comparison, with default weights and an absolute tolerance, missed all but one.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: The tests of the models' numbers; those of files, URLs and texts have nothing to say here.
TESTS = [
    *(
        f"tests/parity/test_{name}.py"
        for name in ("heads", "decoders", "preprocessors", "positions", "multimodal")
    ),
    *(f"tests/perceiver_core/test_{name}.py" for name in ("reference", "model", "losses")),
]

FOLDING_TESTS = ["tests/parity/test_folding.py"]

_NO_BIAS = """
class _NoBias(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight)

"""
_NO_GAIN = """
class _NoGain(nn.LayerNorm):
    def forward(self, x):
        return nn.functional.layer_norm(x, self.normalized_shape)

"""

#: name -> (file, [(what, by what), ...])
MUTATIONS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "all biases of linear layers dropped": (
        "attention.py",
        [
            ("nn.Linear(", "_NoBias("),
            ("\n\nclass AttentionProjections", _NO_BIAS + "\nclass AttentionProjections"),
        ],
    ),
    "weight and bias of LayerNorms dropped": (
        "attention.py",
        [
            ("nn.LayerNorm(", "_NoGain("),
            ("\n\nclass AttentionProjections", _NO_GAIN + "\nclass AttentionProjections"),
        ],
    ),
    "batch norm's statistics dropped": (
        "image_preprocessor.py",
        [
            (
                "self.batchnorm(x)",
                "nn.functional.batch_norm(x, None, None, self.batchnorm.weight, training=True)",
            )
        ],
    ),
    "tanh for erf": (
        "attention.py",
        [('"gelu": nn.functional.gelu,', '"gelu": partial(nn.functional.gelu, approximate="tanh"),')],
    ),
    "half the heads": (
        "attention.py",
        [("self.num_heads = num_heads", "self.num_heads = max(1, num_heads // 2)")],
    ),
    "residual flipped": (
        "attention.py",
        [("if self.use_query_residual:", "if not self.use_query_residual:")],
    ),
    "convolution's kernel transposed": (
        "image_preprocessor.py",
        [("kernel = self.conv.weight\n", "kernel = self.conv.weight.transpose(2, 3)\n")],
    ),
    "eps of 1e-12": ("attention.py", [("nn.LayerNorm(q_dim)", "nn.LayerNorm(q_dim, eps=1e-12)")]),
    "residual after LayerNorm": ("attention.py", [("a = a + x  # x before LN1", "a = a + w.layernorm1(x)")]),
    "no scaling by the head's channels": (
        "attention.py",
        [("/ math.sqrt(queries.shape[-1])", "/ math.sqrt(self.num_heads * queries.shape[-1])")],
    ),
    # dropping its values instead changes nothing at all: a key's bias cancels in the softmax
    "no key bias": (
        "attention.py",
        [("nn.Linear(kv_dim, qk_channels)", "nn.Linear(kv_dim, qk_channels, bias=False)")],
    ),
    "heads interleaved": (
        "attention.py",
        [
            (
                "x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)",
                "x.unflatten(-1, (-1, self.num_heads)).permute(0, 3, 1, 2)",
            )
        ],
    ),
    "latents in another order": (
        "encoder.py",
        [("return self.latents[None]", "return self.latents.flip(0)[None]")],
    ),
    "blocks do not repeat": ("encoder.py", [("for block in head_masks:", "for block in head_masks[:1]:")]),
    "attention mask ignored": (
        "model.py",
        [("dropped = attention_mask == 0", "dropped = attention_mask < 0")],
    ),
    "decoder sees the encoder's positions": (
        "positions.py",
        [
            (
                '-1 + 2 * torch.arange(n, device="cpu") / n',
                '-1 + 2 * torch.arange(n, device="cpu") / (n - 1)',
            )
        ],
    ),
    "Fourier features in float64": ("positions.py", [("dtype=torch.float32", "dtype=torch.float64")]),
    "Fourier order of operations": (
        "positions.py",
        [
            (
                "math.pi * (positions[:, None] * bands)",
                "positions[:, None] * (math.pi * bands)",
            )
        ],
    ),
    "sines after cosines": (
        "positions.py",
        [("[torch.sin(phases), torch.cos(phases)]", "[torch.cos(phases), torch.sin(phases)]")],
    ),
    "height and width swapped": (
        "positions.py",
        [("yield from enumerate(kind)", "yield from reversed([*enumerate(kind)])")],
    ),
    "patches by channel first": (
        "image_preprocessor.py",
        [("permute(0, 1, 4, 6, 2, 5, 7, 3)", "permute(0, 1, 4, 6, 2, 3, 5, 7)")],
    ),
    "modalities in order of declaration": (
        "modalities.py",
        [("names = sorted(tokens)", "names = ['image', *(n for n in tokens if n != 'image')]")],
    ),
    "padding of the first modality for all": (
        "modalities.py",
        [
            (
                "padding = self.padding[name].to(query.dtype)",
                "padding = self.padding[name].flip(-1).to(query.dtype)",
            )
        ],
    ),
    "flow not divided by 100": ("decoders.py", [("output.logits / self.rescale_factor", "output.logits")]),
    "queries without the inputs' positions": (
        "decoders.py",
        [
            (
                "        if subsampled_points is None:\n            return inputs",
                "        if subsampled_points is None:\n            return inputs_without_pos",
            )
        ],
    ),
    "vocabulary's bias dropped": (
        "heads/text.py",
        [("embedding_layer.weight, self.bias)", "embedding_layer.weight)")],
    ),
    "text positions from the end": (
        "preprocessors.py",
        [
            (
                "self.position_embeddings.weight[: inputs.shape[1]]",
                "self.position_embeddings.weight[-inputs.shape[1] :]",
            )
        ],
    ),
    "head mask on the wrong layer": ("encoder.py", [("rows = rows * blocks", "rows = rows[::-1] * blocks")]),
    "decoder's map missing": (
        "model.py",
        [("encoded.cross_attentions + decoder_maps", "encoded.cross_attentions")],
    ),
    "first hidden state missing": (
        "encoder.py",
        [
            (
                "            if output_hidden_states:\n                states.append(x)\n            for layer",
                "            for layer",
            )
        ],
    ),
    "folded without LayerNorms' shifts": (
        "folding/algebra.py",
        [("layer.bias + layer.weight @ shift", "layer.bias")],
    ),
    "folded weights not centred": (
        "folding/algebra.py",
        [("return weight - weight.mean(dim=-1, keepdim=True)", "return weight")],
    ),
    "the triangle's corner dropped": (
        "folding/queries.py",
        [("torch.stack(squares).sum(0) + self.rest", "torch.stack(squares).sum(0)")],
    ),
    "the tail's bias counted twice": (
        "folding/queries.py",
        [("self.direct.bias - tail.bias", "self.direct.bias")],
    ),
    "the padding's share of a query's variance": (
        "folding/queries.py",
        [("(queries.padding.sum(), queries.padding.square().sum())", "(queries.padding.sum(), 0.0)")],
    ),
    "a token's padding not in its variance": (
        "folding/cross_attention.py",
        [("        squares += self.padding_spread + p * (self.padding_mean - mean).square()\n", "")],
    ),
    "the mask ignored, folded": (
        "folding/cross_attention.py",
        [("scores.masked_fill_(~keep,", "scores.masked_fill_(keep & ~keep,")],
    ),
    "marginals of the wrong axes": (
        "folding/cross_attention.py",
        [("return [weights.sum(2), weights.sum(1)]", "return [weights.sum(1), weights.sum(2)]")],
    ),
    "positions of packed bytes": (
        "folding/text.py",
        [
            (
                "self.preprocessor.position_embeddings.weight[columns]",
                "self.preprocessor.position_embeddings.weight[torch.arange(len(columns))]",
            )
        ],
    ),
    "a text of padding alone": (
        "folding/text.py",
        [("torch.zeros_like(self.queries) if nothing else self.queries", "self.queries")],
    ),
    "no residual around the folded MLP": (
        "folding/stack.py",
        [("return x + self.second(hidden)", "return self.second(hidden)")],
    ),
    "changed weights not noticed": (
        "folding/engine.py",
        [("if _state(self.model) != self._weights:", "if self.model is None:")],
    ),
    "flow's common value lost": (
        "folding/flow.py",
        [("values) + common", "values)")],
    ),
}


def first_failure(folder: Path, tests: list[str]) -> str | None:
    """The first of the tests that fails in that copy."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        *tests,
        "-x",
        "-q",
        "--no-header",
        "--show-capture=no",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(
            f"pytest must run; it ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    failed = [
        line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))
    ]
    return failed[0] if failed else None


def main(names: list[str]) -> int:
    unnoticed = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("perceiver_core", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, folder)
        if failure := first_failure(folder, TESTS + FOLDING_TESTS) if not names else None:
            raise RuntimeError(f"The tests must pass before anything is broken; got {failure}.")
        for name in names or MUTATIONS:
            file, changes = MUTATIONS[name]
            path = folder / "perceiver_core" / file
            good = text = path.read_text()
            for what, by in changes:
                if what not in text:
                    raise RuntimeError(f"{name}: {file} must contain {what!r}, which is not there any more.")
                text = text.replace(what, by)
            path.write_text(text)
            began = time.monotonic()
            failure = first_failure(folder, FOLDING_TESTS if file.startswith("folding/") else TESTS)
            path.write_text(good)
            print(
                f"{name:45} {failure or 'NOTICED BY NO TEST'}  ({time.monotonic() - began:.0f} s)", flush=True
            )
            unnoticed += [] if failure else [name]
    print(f"{len(names or MUTATIONS)} bugs, {len(unnoticed)} noticed by no test")
    return bool(unnoticed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
