"""The peer of `hardn bench --only safecoder-step,sven-step`: steps of both methods in PyTorch + transformers (+ PEFT).

The first line on standard input says what is trained: {"model": folder, "method": "safecoder" or "sven", "checkpointing",
"threads", "learning_rate", "weight_decay"}, "lora": {"r", "alpha", "dropout", "target_modules"} or "prefix": {"tokens",
"dropout"}, and "loss", the factors. Each further line is one step: {"ids", "selected": rows of equal length, "kinds":
"utility", "secure" or "vulnerable" for each row}. Answers each with one JSON object.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache, DynamicLayer


def peak_kib() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


class PrefixLayer(DynamicLayer):
    """Learnt keys and values before those of the text, which are not kept: a layer may be computed again."""

    def __init__(self, keys, values):
        super().__init__()
        self.prefix = keys, values

    def update(self, keys, values, *args, **kwargs):
        before = (side.expand(len(keys), -1, -1, -1) for side in self.prefix)
        return tuple(torch.cat(pair, dim=-2) for pair in zip(before, (keys, values)))

    def get_seq_length(self):
        return self.prefix[0].shape[-2]

    def get_mask_sizes(self, query_length):
        return self.get_seq_length() + query_length, 0


class Prefix(torch.nn.Module):
    """One adapter of SVEN: keys and values for every layer, zero at first, with dropout."""

    def __init__(self, config, tokens, dropout):
        super().__init__()
        heads = config.num_key_value_heads
        size = config.hidden_size // config.num_attention_heads
        self.values = torch.nn.Parameter(torch.zeros(config.num_hidden_layers, 2, 1, heads, tokens, size))
        self.dropout = dropout

    def forward(self):
        return Cache(layers=[PrefixLayer(*layer) for layer in F.dropout(self.values, self.dropout, self.training)])


def masked_means(values, mask):
    """The mean of each row's values where the mask is 1."""
    return (values * mask).sum(1) / mask.sum(1)


def safecoder(model, factors, ids, selected, kinds):
    """Likelihood of utility and secure rows, unlikelihood of vulnerable ones: the mean over rows."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    nll = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
    unlikelihood = -torch.log(torch.clamp(1 - torch.exp(-nll), min=1e-5))
    vulnerable = torch.tensor([kind == "vulnerable" for kind in kinds])
    weights = torch.tensor([factors["unlikelihood" if kind == "vulnerable" else kind] for kind in kinds])
    values = torch.where(vulnerable[:, None], unlikelihood, nll)
    return (weights * masked_means(values, selected)).mean()


def sven(model, prefixes, factors, ids, selected, kinds):
    """Likelihood and contrast of selected tokens, divergence of both prefixes elsewhere: the mean over rows."""
    passes = [model(input_ids=ids, past_key_values=prefix(), use_cache=False) for prefix in prefixes]
    log_probs = [F.log_softmax(each.logits[:, :-1], dim=-1) for each in passes]
    with torch.no_grad():
        reference = F.log_softmax(model(input_ids=ids, use_cache=False).logits[:, :-1], dim=-1)
    targets = ids[:, 1:, None]
    secure, vulnerable = (-each.gather(-1, targets).squeeze(-1) for each in log_probs)
    is_secure = torch.tensor([kind == "secure" for kind in kinds])[:, None]
    own, other = torch.where(is_secure, secure, vulnerable), torch.where(is_secure, vulnerable, secure)
    kl = sum(F.kl_div(each, reference, log_target=True, reduction="none").sum(-1) for each in log_probs)
    rows = factors["secure"] * masked_means(own, selected)
    rows = rows + factors["contrastive"] * masked_means(F.softplus(own - other), selected)
    return (rows + factors["kl"] * masked_means(kl, 1 - selected)).mean()


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup["threads"])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(setup["model"], dtype=torch.float32)
    if setup["checkpointing"]:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    factors = setup["loss"]
    if setup["method"] == "safecoder":
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
        trained = [p for p in model.parameters() if p.requires_grad]

        def loss_of(batch):
            return safecoder(model, factors, *batch)

    else:
        model.requires_grad_(False)
        for layer in model.model.layers:
            # The prefix is only read, so a layer may be computed again with it.
            type(layer)._can_checkpoint_with_cache = True
        prefix = setup["prefix"]
        prefixes = [Prefix(model.config, prefix["tokens"], prefix["dropout"]) for _ in range(2)]
        trained = [p for each in prefixes for p in each.parameters()]

        def loss_of(batch):
            return sven(model, prefixes, factors, *batch)

    model.train()
    optimizer = torch.optim.AdamW(trained, lr=setup["learning_rate"], weight_decay=setup["weight_decay"])
    facts = {"torch": torch.__version__, "trainable": sum(p.numel() for p in trained)}
    print(json.dumps(facts | {"start_kib": peak_kib()}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        ids = torch.tensor(question["ids"], dtype=torch.long)
        selected = torch.tensor(question["selected"], dtype=torch.float32)[:, 1:]
        start = time.perf_counter()
        loss = loss_of((ids, selected, question["kinds"]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - start
        print(json.dumps({"loss": loss.item(), "seconds": seconds, "peak_kib": peak_kib()}), flush=True)


if __name__ == "__main__":
    main()
