//! Looking inside.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hardn_models::BaseWeights;

#[derive(Subcommand)]
pub(crate) enum InspectCommand {
    /// Logits of every position
    Logits {
        /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
        #[arg(long)]
        model: String,
        /// An adapter folder in PEFT layout, or its hub name
        #[arg(long)]
        adapter: Option<PathBuf>,
        /// Token ids, comma-separated
        #[arg(long, value_delimiter = ',', required = true)]
        ids: Vec<u32>,
        /// How weights are kept: f32, bf16, f16, int8, or stored (as a GGUF file has them)
        #[arg(long, default_value = "f32")]
        dtype: BaseWeights,
    },
    /// Token ids and their code-point offsets
    Tokens {
        /// A shipped lab model, a folder with a tokenizer, or a hub name (owner/name or owner/name@revision)
        #[arg(long, alias = "tokenizer")]
        model: String,
        /// The text, or - for standard input
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// A conversation as the model's chat template writes it, and its token ids
    Chat {
        /// A folder with a tokenizer and a chat template
        #[arg(long, alias = "tokenizer")]
        model: String,
        /// The template's name, where there are several
        #[arg(long)]
        template: Option<String>,
        /// A JSON list of tools
        #[arg(long)]
        tools: Option<PathBuf>,
        /// End with the beginning of an answer
        #[arg(long)]
        add_generation_prompt: bool,
        /// End inside the last message
        #[arg(long, conflicts_with = "add_generation_prompt")]
        continue_final_message: bool,
        /// A JSON list of messages with `role` and `content`, or - for standard input
        #[arg(default_value = "-")]
        messages: PathBuf,
    },
    /// Token masks of fix pairs
    Masks {
        /// A folder with tokenizer.json
        #[arg(long, alias = "model")]
        tokenizer: String,
        /// mix, char, line, ndiff, difflib or whole
        #[arg(long)]
        kind: String,
        /// Longest sample kept, in tokens
        #[arg(long, default_value_t = 1024)]
        max_tokens: usize,
        /// Give a side without selected tokens those at which it parts from the other, as `loss.one_sided = "next_token"`
        /// does; it is marked `completed`, and a mask longer than the text by one selects what ends it
        #[arg(long)]
        complete: bool,
        /// Fix pairs, JSON Lines
        pairs: PathBuf,
    },
    /// Loss terms of fix pairs under a recipe
    ///
    /// One line per side: `terms` of that side, reduced but not weighted, `loss`, the weighted sum, `n_tokens`. A loss that
    /// takes both sides together (`dpo`, `simpo`) is the pair's: its term, `margin` and `loss` stand on both lines.
    Loss {
        /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
        #[arg(long)]
        model: String,
        /// An adapter folder in PEFT layout, or its hub name; for a loss with an adapter for each side, a folder that
        /// holds `secure` and `vulnerable`
        #[arg(long)]
        adapter: Option<PathBuf>,
        /// What divergences and `dpo` are measured from, as --model; without it the model without its adapter
        #[arg(long)]
        reference: Option<String>,
        /// A shipped recipe's name or a TOML file
        #[arg(long)]
        recipe: String,
        /// Override a key of the recipe, as KEY=VALUE; may be repeated
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Fix pairs, JSON Lines
        pairs: PathBuf,
    },
    /// The tokens of a training step, marked by what the loss does with them
    ///
    /// With --json, one line per sample: `id`, `kind`, where it lies (`micro_batch`, `row`, `start`), counts, `ids`, and for
    /// each token its text and `context`, `utility`, `secure`, `vulnerable` or `kl`. Kept and dropped examples are counted
    /// on standard error.
    Batch(InspectBatchArgs),
    /// How likely the changed tokens are on both sides of fix pairs
    Preference {
        /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
        #[arg(long)]
        model: String,
        /// An adapter folder in PEFT layout, or its hub name
        #[arg(long)]
        adapter: Option<PathBuf>,
        /// Fix pairs, JSON Lines
        pairs: PathBuf,
    },
    /// A statistical test on numbers given as JSON
    #[command(after_help = "Examples:\n  hardn inspect stats --test fisher '[[8,2],[1,5]]'\n  \
        hardn inspect stats --test wilson '{\"successes\":8,\"n\":10}'\n  \
        hardn inspect stats --test pass-at-k '{\"n\":10,\"c\":3,\"k\":1}'")]
    Stats {
        /// fisher, cmh, wilson, kappa, holm, bh or pass-at-k
        #[arg(long)]
        test: String,
        /// The numbers
        json: String,
    },
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  hardn inspect batch --model lab-1m --recipe safecoder-lab --step 3 pairs.jsonl --utility utility.jsonl"
)]
pub(crate) struct InspectBatchArgs {
    /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
    #[arg(long, alias = "tokenizer")]
    pub(crate) model: String,
    /// A shipped recipe's name or a TOML file
    #[arg(long)]
    pub(crate) recipe: String,
    /// Override a key of the recipe, as KEY=VALUE; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Fix pairs
    pub(crate) pairs: PathBuf,
    /// Utility rows; may be repeated
    #[arg(long)]
    pub(crate) utility: Vec<PathBuf>,
    /// Which step, from 1
    #[arg(long, default_value_t = 1)]
    pub(crate) step: usize,
    /// JSON Lines, one per sample
    #[arg(long)]
    pub(crate) json: bool,
}
