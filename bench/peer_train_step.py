"""The peer of `hardn bench`: training steps in PyTorch + transformers, with PEFT where an adapter is trained.

The first line on standard input says what is trained: {"model": folder} or {"config": keys of LlamaConfig} for random
weights; "lora": null or {"r", "alpha", "dropout", "target_modules"}; "threads", "learning_rate". Each further line,
{"ids": [[...], ...]} (rows of equal length), is one step. Answers each with one JSON object.
"""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


def peak_kib() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup["threads"])
    torch.manual_seed(0)
    if "model" in setup:
        model = AutoModelForCausalLM.from_pretrained(setup["model"], dtype=torch.float32)
    else:
        model = LlamaForCausalLM(LlamaConfig(**setup["config"]))
    if setup["lora"]:
        from peft import LoraConfig, get_peft_model

        lora = setup["lora"]
        config = LoraConfig(
            r=lora["r"],
            lora_alpha=lora["alpha"],
            lora_dropout=lora["dropout"],
            target_modules=lora["target_modules"],
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, config)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=setup["learning_rate"], weight_decay=0.01)
    facts = {"torch": torch.__version__, "trainable": sum(p.numel() for p in trained)}
    print(json.dumps(facts | {"start_kib": peak_kib()}), flush=True)
    for line in sys.stdin:
        ids = torch.tensor(json.loads(line)["ids"], dtype=torch.long)
        start, used = time.perf_counter(), time.process_time()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        answer = {
            "loss": loss.item(),
            "seconds": time.perf_counter() - start,
            "processor_seconds": time.process_time() - used,
            "peak_kib": peak_kib(),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
