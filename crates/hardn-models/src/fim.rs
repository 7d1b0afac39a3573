//! Fill-in-the-middle prompts: how each family marks the text before and behind the gap.

use crate::{ModelError, Result, Tokenizer};
use FimPart::{Prefix, Suffix, Text, Token};

/// One part of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FimPart {
    /// A token of the vocabulary.
    Token(&'static str),
    /// Text that belongs to the format.
    Text(&'static str),
    /// The text before the gap.
    Prefix,
    /// The text behind the gap.
    Suffix,
}

/// Which of the two texts comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FimOrder {
    /// Prefix, suffix, middle: what every family is published with.
    #[default]
    PrefixFirst,
    /// Suffix, prefix, middle: the prefix goes on into the middle.
    SuffixFirst,
}

/// The prompt of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FimFormat {
    /// The family it was published with.
    pub name: &'static str,
    /// The prompt with the prefix first; a tokenizer has the format if it has all of its tokens.
    pub prefix_first: &'static [FimPart],
    /// The prompt with the suffix first, for families trained on it.
    pub suffix_first: Option<&'static [FimPart]>,
    /// The token that ends a middle, where it is not the end-of-text token.
    pub end: Option<&'static str>,
}

/// The known formats. A tokenizer's format is the first of which it has all tokens.
///
/// Sources: Bavarian et al. 2022 (arXiv:2207.14255) for the two orders; for the tokens the model cards and papers of SantaCoder
/// (arXiv:2301.03988), StarCoder (arXiv:2305.06161), Code Llama (arXiv:2308.12950), DeepSeek-Coder (arXiv:2401.14196),
/// Qwen2.5-Coder (arXiv:2409.12186), InCoder (arXiv:2204.05999) and CodeGen2 (arXiv:2305.02309). The lab's models have Qwen's names.
pub const FIM_FORMATS: &[FimFormat] = &[
    FimFormat {
        name: "starcoder",
        prefix_first: &[
            Token("<fim_prefix>"),
            Prefix,
            Token("<fim_suffix>"),
            Suffix,
            Token("<fim_middle>"),
        ],
        suffix_first: Some(&[
            Token("<fim_prefix>"),
            Token("<fim_suffix>"),
            Suffix,
            Token("<fim_middle>"),
            Prefix,
        ]),
        end: None,
    },
    FimFormat {
        name: "santacoder",
        prefix_first: &[
            Token("<fim-prefix>"),
            Prefix,
            Token("<fim-suffix>"),
            Suffix,
            Token("<fim-middle>"),
        ],
        suffix_first: Some(&[
            Token("<fim-prefix>"),
            Token("<fim-suffix>"),
            Suffix,
            Token("<fim-middle>"),
            Prefix,
        ]),
        end: None,
    },
    FimFormat {
        name: "codellama",
        prefix_first: &[
            Token("▁<PRE>"),
            Text(" "),
            Prefix,
            Token("▁<SUF>"),
            Suffix,
            Token("▁<MID>"),
        ],
        suffix_first: Some(&[
            Token("▁<PRE>"),
            Token("▁<SUF>"),
            Suffix,
            Token("▁<MID>"),
            Text(" "),
            Prefix,
        ]),
        end: Some("▁<EOT>"),
    },
    FimFormat {
        name: "deepseek-coder",
        prefix_first: &[
            Token("<｜fim▁begin｜>"),
            Prefix,
            Token("<｜fim▁hole｜>"),
            Suffix,
            Token("<｜fim▁end｜>"),
        ],
        suffix_first: None,
        end: None,
    },
    FimFormat {
        name: "qwen2.5-coder",
        prefix_first: &[
            Token("<|fim_prefix|>"),
            Prefix,
            Token("<|fim_suffix|>"),
            Suffix,
            Token("<|fim_middle|>"),
        ],
        suffix_first: None,
        end: None,
    },
    FimFormat {
        name: "incoder",
        prefix_first: &[
            Prefix,
            Token("<|mask:0|>"),
            Suffix,
            Token("<|mask:1|>"),
            Token("<|mask:0|>"),
        ],
        suffix_first: None,
        end: Some("<|endofmask|>"),
    },
    FimFormat {
        name: "codegen2",
        prefix_first: &[
            Prefix,
            Token("<mask_1>"),
            Suffix,
            Token("<|endoftext|>"),
            Token("<sep>"),
            Token("<mask_1>"),
        ],
        suffix_first: None,
        end: Some("<eom>"),
    },
];

impl Tokenizer {
    /// The format of the tokenizer's family; `None` if it has none of the known ones.
    pub fn fim_format(&self) -> Option<&'static FimFormat> {
        FIM_FORMATS.iter().find(|format| {
            let has = |part: &FimPart| match part {
                Token(name) => self.special(name).is_some(),
                _ => true,
            };
            format.prefix_first.iter().all(has)
        })
    }

    /// The ids of a prompt for the text between `prefix` and `suffix`, in the order the family was published with; with the
    /// begin token where the tokenizer adds one.
    ///
    /// # Errors
    /// A tokenizer without a known format, and what [`Self::encode_prompt`] reports.
    pub fn fim_prompt(&self, prefix: &str, suffix: &str) -> Result<Vec<u32>> {
        self.fim_prompt_in(FimOrder::PrefixFirst, prefix, suffix)
    }

    /// [`Self::fim_prompt`] in a given order.
    ///
    /// # Errors
    /// As there, and an order the family was not trained on.
    pub fn fim_prompt_in(&self, order: FimOrder, prefix: &str, suffix: &str) -> Result<Vec<u32>> {
        let format = self.fim_format().ok_or_else(|| {
            ModelError::Input("the tokenizer has no tokens for filling in the middle".to_owned())
        })?;
        let parts = match order {
            FimOrder::PrefixFirst => Some(format.prefix_first),
            FimOrder::SuffixFirst => format.suffix_first,
        };
        let parts = parts.ok_or_else(|| {
            ModelError::Input(format!("`{}` models know no suffix before the prefix", format.name))
        })?;
        let text: String = parts
            .iter()
            .map(|part| match part {
                Token(text) | Text(text) => text,
                Prefix => prefix,
                Suffix => suffix,
            })
            .collect();
        Ok(self.encode_prompt(&text)?.ids)
    }

    /// The token that ends a middle: the family's own, else the end-of-text token.
    pub fn fim_end(&self) -> Option<u32> {
        let own = self.fim_format().and_then(|format| format.end);
        own.and_then(|name| self.special(name)).or_else(|| self.eos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train_bpe;

    fn check(specials: &[&str], order: FimOrder, expected: &str) {
        let tokenizer = train_bpe(["a b c"].into_iter(), 300, specials).unwrap();
        let ids = tokenizer.fim_prompt_in(order, "a\n", "b").unwrap();
        let text: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).to_vec()).collect();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        for name in specials.iter().skip(1).filter(|name| expected.contains(**name)) {
            assert!(ids.contains(&tokenizer.special(name).unwrap()), "{name}");
        }
    }

    #[test]
    fn each_family_marks_the_gap_its_own_way() {
        use FimOrder::{PrefixFirst, SuffixFirst};
        let star = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"];
        check(&star, PrefixFirst, "<fim_prefix>a\n<fim_suffix>b<fim_middle>");
        check(&star, SuffixFirst, "<fim_prefix><fim_suffix>b<fim_middle>a\n");
        let codegen2 = ["<|endoftext|>", "<mask_1>", "<sep>", "<eom>"];
        check(&codegen2, PrefixFirst, "a\n<mask_1>b<|endoftext|><sep><mask_1>");
        let incoder = ["<|endoftext|>", "<|mask:0|>", "<|mask:1|>", "<|endofmask|>"];
        check(&incoder, PrefixFirst, "a\n<|mask:0|>b<|mask:1|><|mask:0|>");
        check(crate::LAB_SPECIALS, PrefixFirst, "<|fim_prefix|>a\n<|fim_suffix|>b<|fim_middle|>");
    }

    #[test]
    fn a_tokenizer_without_the_tokens_says_so() {
        let tokenizer = train_bpe(["a b c"].into_iter(), 300, &["<|endoftext|>"]).unwrap();
        assert!(tokenizer.fim_format().is_none());
        let message = tokenizer.fim_prompt("a", "b").unwrap_err().to_string();
        assert!(message.contains("filling in the middle"), "{message}");
        let tokenizer = train_bpe(["a b c"].into_iter(), 300, crate::LAB_SPECIALS).unwrap();
        assert!(tokenizer.fim_prompt_in(FimOrder::SuffixFirst, "a", "b").is_err());
    }
}
