"""The peer of `hardn bench --only lora-step`: one LoRA step in PyTorch + transformers + PEFT.

Reads one JSON object per line on standard input: {"ids": [[...], ...]} (a batch of equal-length rows) is one step.
Answers each with {"seconds": float, "loss": float}. The first line says the model folder and the adapter's shape.
"""

import json
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup["threads"])
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(setup["model"], dtype=torch.float32)
    config = LoraConfig(
        r=setup["r"],
        lora_alpha=setup["alpha"],
        lora_dropout=setup["dropout"],
        target_modules=setup["target_modules"],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=setup["learning_rate"], weight_decay=0.01)
    facts = {"torch": torch.__version__, "trainable": sum(p.numel() for p in trained)}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        ids = torch.tensor(json.loads(line)["ids"], dtype=torch.long)
        start = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        print(json.dumps({"seconds": time.perf_counter() - start, "loss": value}), flush=True)


if __name__ == "__main__":
    main()
