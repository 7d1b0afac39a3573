"""Compares llama.cpp's logits of exported fixtures with the expected ones.

First `HARDN_GGUF_OUT=DIR cargo test -p hardn-models --lib files_for_llama_cpp -- --ignored`, then
`python compare_llama_cpp.py DIR` with llama-cpp-python, or `python compare_llama_cpp.py DIR PROGRAM`, where
`PROGRAM FILE ID..` prints a line of logits for each position.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parent / "fixtures"


def by_program(program):
    def logits(path, ids, vocab_size):
        command = [program, str(path), *map(str, ids)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return np.array([line.split() for line in text.splitlines()], dtype=np.float32)

    return logits


def by_library(path, ids, vocab_size):
    import llama_cpp

    model = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, n_gpu_layers=0, verbose=False)
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def main():
    folder = Path(sys.argv[1])
    logits = by_program(sys.argv[2]) if len(sys.argv) > 2 else by_library
    for path in sorted(folder.glob("*.gguf")):
        config = json.loads((FIXTURES / path.stem / "config.json").read_text())
        expected = json.loads((FIXTURES / path.stem / "expected.json").read_text())
        # Beyond a window llama.cpp sees more than the model does.
        window = config.get("sliding_window") or 1000
        worst = {}
        for prompt in expected["prompts"]:
            found = logits(path, prompt["ids"], config["vocab_size"])
            wanted = np.array(prompt["logits"], dtype=np.float32).reshape(-1, config["vocab_size"])
            for position, row in zip(prompt["positions"], wanted, strict=True):
                if position < min(window, len(prompt["ids"])):
                    error = float(np.abs(found[position] - row).max())
                    worst[prompt["kind"]] = max(error, worst.get(prompt["kind"], 0.0))
        print(f"{path.stem}: " + ", ".join(f"{kind} {error:.1e}" for kind, error in worst.items()))


main()
