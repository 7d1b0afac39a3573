"""The peer of `hardn decode-bench`: co-decoding (CoSec, Algorithm 1) token by token in PyTorch + transformers.

The first line on standard input is {"base", "security", "security_adapter", "threads", "temperature", "top_p",
"threshold"}; models and adapter are folders. Each further line, {"prompts": lists of ids, "new", "ends"}, asks for a text
after each prompt; the answer has the seconds all took, their tokens and how many the security model chose.
"""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM


def warped(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Probabilities at a temperature, of the smallest set of tokens that holds `top_p`. `logits` [vocabulary]."""
    values, order = torch.softmax(logits / temperature, -1).sort(descending=True)
    keep = values.cumsum(-1) - values < top_p
    kept = torch.zeros_like(values).scatter(-1, order, values * keep)
    return kept / kept.sum()


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup["threads"])
    torch.manual_seed(1)
    load = lambda folder: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    base, security = load(setup["base"]), load(setup["security"])
    if setup["security_adapter"]:
        from peft import PeftModel

        security = PeftModel.from_pretrained(security, setup["security_adapter"]).merge_and_unload().eval()
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        start, tokens, accepted = time.perf_counter(), 0, 0
        with torch.inference_mode():
            for prompt in wanted["prompts"]:
                ids = torch.tensor([prompt])
                ours, theirs = None, None
                for _ in range(wanted["new"]):
                    proposer = security(ids, past_key_values=ours, use_cache=True, logits_to_keep=1)
                    judge = base(ids, past_key_values=theirs, use_cache=True, logits_to_keep=1)
                    ours, theirs = proposer.past_key_values, judge.past_key_values
                    p = warped(proposer.logits[0, -1], setup["temperature"], setup["top_p"])
                    q = torch.softmax(judge.logits[0, -1], -1)
                    token = torch.multinomial(p, 1)
                    kept = bool(setup["threshold"] < min(1.0, float(q[token] / p[token])))
                    if not kept:
                        token = torch.multinomial(q, 1)
                    if int(token) in wanted["ends"]:
                        break
                    tokens, accepted = tokens + 1, accepted + kept
                    ids = token.unsqueeze(0)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "tokens": tokens, "accepted": accepted}), flush=True)


if __name__ == "__main__":
    main()
