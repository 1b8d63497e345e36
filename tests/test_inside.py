"The states of each layer, read by the lens and by a probe."
import pytest
import torch
from datasets import Dataset
from transformers import (GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM,
                          LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM)

from course_lib.inside import layer_states

SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
         "max_position_embeddings": 32}
FAMILIES = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=60, n_embd=16, n_layer=3, n_head=2,
                                         n_positions=32)),
    "llama": (LlamaForCausalLM, LlamaConfig(**SMALL, intermediate_size=32)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SMALL, intermediate_size=32,
                                            num_key_value_heads=2)),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**SMALL, intermediate_size=32)),
    "opt": (OPTForCausalLM, OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16))}


@pytest.fixture(scope="module")
def texts():
    draw = torch.Generator().manual_seed(0)
    lengths = [5, 1, 9, 3, 12, 7, 2]
    return Dataset.from_dict({"input_ids": [
        torch.randint(3, 60, (n,), generator=draw).tolist() for n in lengths]})


@pytest.fixture(params=FAMILIES)
def writer(request):
    kind, config = FAMILIES[request.param]
    torch.manual_seed(0)
    return kind(config).eval()


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_states_are_those_of_each_text_alone(writer, texts, batch_size):
    found = layer_states(writer, texts, batch_size)
    assert found.shape == (4, len(texts), 16)
    for row, ids in enumerate(texts["input_ids"]):
        with torch.no_grad(): alone = writer(torch.tensor([ids]), output_hidden_states=True)
        wanted = torch.stack([states[0, -1] for states in alone.hidden_states])
        torch.testing.assert_close(found[:, row], wanted, atol=1e-5, rtol=0)


def test_the_last_state_is_what_the_head_reads(writer, texts):
    last = layer_states(writer, texts)[-1]
    for row, ids in enumerate(texts["input_ids"]):
        with torch.no_grad():
            logits = writer(torch.tensor([ids])).logits[0, -1]
            torch.testing.assert_close(writer.lm_head(last[row]), logits, atol=1e-5, rtol=0)


def test_dropout_is_off_and_the_mode_is_kept(texts):
    torch.manual_seed(0)
    writer = GPT2LMHeadModel(FAMILIES["gpt2"][1]).train()
    assert torch.equal(layer_states(writer, texts), layer_states(writer, texts))
    assert writer.training and writer.transformer.training
