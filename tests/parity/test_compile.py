"""torch.compile without a graph break, and torch.export, of every head; upstream breaks 3 to 29 times."""

import pytest
import torch

EXACT = 1e-12


def plain(output):
    """Output classes and tuples as lists of tensors."""
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if hasattr(output, "values") else output
    return [tensor for value in values for tensor in plain(value)]


@pytest.fixture
def case(oracle, head, sizes_of):
    _, ours = oracle.pair(sizes_of[head], head=head)
    inputs, arguments = oracle.heads_inputs(head)
    # what the data says may not be looked at: other data must take the same graph
    others = {name: x.flip(0) for name, x in inputs.items()} if isinstance(inputs, dict) else inputs.flip(0)
    return ours.requires_grad_(False), inputs, others, arguments


@pytest.mark.parametrize("maps", [False, True])
def test_compile(case, maps):
    model, inputs, others, arguments = case
    arguments |= {"output_attentions": maps, "output_hidden_states": maps}
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for x in (inputs, others):
        torch.testing.assert_close(
            plain(compiled(x, **arguments)), plain(model(x, **arguments)), rtol=EXACT, atol=EXACT
        )


@pytest.mark.parametrize("return_dict", [True, False])
def test_export(case, return_dict):
    model, inputs, others, arguments = case
    arguments |= {"return_dict": return_dict}
    program = torch.export.export(model, (inputs,), arguments)
    for x in (inputs, others):
        torch.testing.assert_close(
            plain(program.module()(x, **arguments)), plain(model(x, **arguments)), rtol=EXACT, atol=EXACT
        )


def test_encode_and_decode_compile(case):
    model, inputs, _, _ = case
    encode, decode = (torch.compile(m, fullgraph=True, backend="eager") for m in (model.encode, model.decode))
    latents = encode(inputs)
    torch.testing.assert_close(latents, model.encode(inputs), rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(
        plain(decode(latents, inputs=inputs)),
        plain(model.decode(latents, inputs=inputs)),
        rtol=EXACT,
        atol=EXACT,
    )
