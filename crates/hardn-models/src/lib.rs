//! Checkpoint and tokenizer to logits: decoder, KV cache, adapters
