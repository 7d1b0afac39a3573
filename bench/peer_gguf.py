"""Writes a model of random weights for llama.cpp, the peer of `hardn bench --only decode`.

usage: peer_gguf.py CONFIG.json f32|bf16|int8 OUT.gguf

CONFIG.json is a `config.json` of `model_type` llama or qwen2. The file has no tokenizer: the benchmark feeds ids.
"""

import json
import sys

import gguf
import numpy as np

TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "int8": gguf.GGMLQuantizationType.Q8_0,
}


def main() -> None:
    config_path, kind, out = sys.argv[1:]
    with open(config_path, encoding="utf-8") as file:
        config = json.load(file)
    arch = config["model_type"]
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim") or hidden // heads
    writer = gguf.GGUFWriter(out, arch)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    random = np.random.default_rng(1)

    def matrix(name: str, rows: int, columns: int) -> None:
        data = random.random((rows, columns), dtype=np.float32)
        data -= 0.5
        data *= 0.07  # the spread of a fresh model, 0.02
        stored = data if kind == "f32" else gguf.quants.quantize(data, TYPES[kind])
        writer.add_tensor(name, stored, raw_dtype=TYPES[kind])

    def vector(name: str, size: int, value: float) -> None:
        writer.add_tensor(name, np.full(size, value, dtype=np.float32))

    matrix("token_embd.weight", config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        block = f"blk.{i}"
        vector(f"{block}.attn_norm.weight", hidden, 1.0)
        for name, rows in [("q", heads * dim), ("k", kv_heads * dim), ("v", kv_heads * dim)]:
            matrix(f"{block}.attn_{name}.weight", rows, hidden)
            if arch == "qwen2":
                vector(f"{block}.attn_{name}.bias", rows, 0.0)
        matrix(f"{block}.attn_output.weight", hidden, heads * dim)
        vector(f"{block}.ffn_norm.weight", hidden, 1.0)
        matrix(f"{block}.ffn_gate.weight", inner, hidden)
        matrix(f"{block}.ffn_up.weight", inner, hidden)
        matrix(f"{block}.ffn_down.weight", hidden, inner)
    vector("output_norm.weight", hidden, 1.0)
    if not config["tie_word_embeddings"]:
        matrix("output.weight", config["vocab_size"], hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
