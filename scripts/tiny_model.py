"""Writes a tiny random Qwen2 chat model, with a tokenizer of its own, that vLLM can serve.

The weights are random, so the words make no sense; the shapes, the tokenizer, the chat template
and every code path of the server are real. Run it with an interpreter that has torch, transformers
and tokenizers; `vllm_cpu.py model` does so.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SEED = 0
VOCABULARY_SIZE = 2048
CONTEXT_TOKENS = 2048
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# ChatML with tools in the Hermes notation, which vLLM's `hermes` tool parser reads.
CHAT_TEMPLATE = """\
{%- if tools %}
{{- "<|im_start|>system\\nTools you may call:\\n" }}
{%- for tool in tools %}{{- tool | tojson }}{{- "\\n" }}{%- endfor %}
{{- "Answer a call as <tool_call>{\\"name\\": ..., \\"arguments\\": ...}</tool_call>" }}
{{- ".<|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
{{- "<|im_start|>" + message.role + "\\n" }}
{%- if message.content is string %}{{- message.content }}
{%- elif message.content %}{%- for part in message.content %}{{- part.text or "" }}{%- endfor %}
{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- "<tool_call>" + (call.function | tojson) + "</tool_call>" }}
{%- endfor %}
{{- "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|im_start|>assistant\\n" }}{%- endif %}
"""


def main() -> None:
    """Write the model into the directory named on the command line, whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args().directory

    unfinished = directory.with_name(directory.name + ".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_model(unfinished)
    shutil.rmtree(directory, ignore_errors=True)
    unfinished.rename(directory)


def write_model(directory: Path) -> None:
    """Write tokenizer, configuration and weights as transformers would save a trained model."""
    tokenizer = train_tokenizer()
    tokenizer.save_pretrained(directory)
    random_model(tokenizer).save_pretrained(directory)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on Python's own language reference, which every CPython carries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(reference_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def reference_texts() -> Iterator[str]:
    """Yield the topics behind `help()`, in a fixed order so that the merges come out the same."""
    for name in sorted(topics):
        yield topics[name]


def random_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Make the smallest Qwen2 that vLLM's CPU kernels take: they need heads of 64 dimensions.

    Two attention heads and two key-value heads let it be split over two tensor-parallel ranks.
    """
    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
    )
    return Qwen2ForCausalLM(config).to(torch.bfloat16)


if __name__ == "__main__":
    main()
