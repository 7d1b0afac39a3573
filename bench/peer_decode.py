"""The peer of `hardn bench --only decode`: greedy decoding in PyTorch + transformers, weights random.

The first line on standard input is {"config": keys of config.json, "threads"}. Each further line, {"streams", "prompt",
"new"}, asks for so many tokens after prompts of so many; the answer has the seconds they took, prompts not counted.
"""

import json
import sys
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup["threads"])
    torch.manual_seed(0)
    keys = {key: value for key, value in setup["config"].items() if key != "model_type"}
    config = AutoConfig.for_model(setup["config"]["model_type"], **keys)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        ids = torch.randint(config.vocab_size, (wanted["streams"], wanted["prompt"]))
        with torch.inference_mode():
            out = model(ids, use_cache=True, logits_to_keep=1)
            start = time.perf_counter()
            for _ in range(wanted["new"]):
                ids = out.logits[:, -1].argmax(-1, keepdim=True)
                out = model(ids, past_key_values=out.past_key_values, use_cache=True)
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
