//! How byte-level tokenizers cut text before they merge: llama.cpp has names for it, `tokenizer.json` patterns.

use serde_json::{Value, json};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// One step of the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Every match stands alone.
    Split(&'static str),
    /// Every digit stands alone.
    Digits,
}

/// llama.cpp's names, the first of which is written, and the steps.
const CUTS: &[(&[&str], &[Step])] = &[
    (&["gpt-2", "phi-2", "olmo", "mpt", "jais", "default"], &[Step::Split(GPT2)]),
    (
        &["starcoder", "refact", "command-r", "smollm", "codeshell"],
        &[Step::Digits, Step::Split(GPT2)],
    ),
    (&["llama-bpe", "llama3", "llama-v3", "smaug-bpe", "dbrx"], &[Step::Split(LLAMA3)]),
    (&["qwen2", "deepseek-r1-qwen", "stablelm2"], &[Step::Split(QWEN2)]),
    (
        &["deepseek-coder"],
        &[
            Step::Split("[\r\n]"),
            Step::Split(r"\s?\p{L}+"),
            Step::Split(r"\s?\p{P}+"),
            Step::Split("[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+"),
            Step::Digits,
        ],
    ),
    (
        &["deepseek-llm"],
        &[
            Step::Split("[\r\n]"),
            Step::Split(DEEPSEEK_LETTERS),
            Step::Split(
                "\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+",
            ),
            Step::Split(r"\s+$"),
            Step::Split("[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+"),
            Step::Digits,
        ],
    ),
];

/// The cased letters that the tokenizers of DeepSeek LLM and DeepSeek-V2 name one by one.
const DEEPSEEK_LETTERS: &str = "\\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\
    \u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\
    \u{3a1}\u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\
    \u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\
    \u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\
    \u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\
    \u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\
    \u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\
    \u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\
    \u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\
    \u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\
    \u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\
    \u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\
    \u{1e900}-\u{1e943}]+";

/// The names that are understood.
pub(super) fn known() -> String {
    CUTS.iter().flat_map(|(names, _)| *names).copied().collect::<Vec<_>>().join(", ")
}

/// `pre_tokenizer` of `tokenizer.json` for a name of llama.cpp.
pub(super) fn to_json(name: &str) -> Option<Value> {
    let (_, steps) = CUTS.iter().find(|(names, _)| names.contains(&name))?;
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let mut parts: Vec<Value> = Vec::new();
    let mut ends_in_gpt2 = false;
    for step in *steps {
        ends_in_gpt2 = *step == Step::Split(GPT2);
        match step {
            Step::Split(GPT2) => {}
            Step::Split(pattern) => parts.push(json!({
                "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false,
            })),
            Step::Digits => parts.push(json!({"type": "Digits", "individual_digits": true})),
        }
    }
    parts.push(byte_level(ends_in_gpt2));
    match <[Value; 1]>::try_from(parts) {
        Ok([only]) => Some(only),
        Err(parts) => Some(json!({"type": "Sequence", "pretokenizers": parts})),
    }
}

/// llama.cpp's name of a `pre_tokenizer`; `None` if it has none, or another than the text is cut by.
pub(super) fn from_json(pre_tokenizer: &Value) -> Option<&'static str> {
    let mut steps = Vec::new();
    let parts = match pre_tokenizer["type"].as_str()? {
        "Sequence" => pre_tokenizer["pretokenizers"].as_array()?.clone(),
        _ => vec![pre_tokenizer.clone()],
    };
    for part in &parts {
        match part["type"].as_str()? {
            "ByteLevel" => {
                if part["add_prefix_space"] == json!(true) {
                    return None;
                }
                if part["use_regex"] != json!(false) {
                    steps.push(Written::Pattern(GPT2.to_owned()));
                }
            }
            "Digits" => steps.push(Written::Digits(part["individual_digits"].as_bool()?)),
            "Split" => {
                let pattern = part["pattern"]["Regex"].as_str()?;
                let is_plain = part["behavior"] == "Isolated" && part["invert"] == json!(false);
                // Everything that is not a match, inverted and removed, is the same cut.
                let is_inverted = part["behavior"] == "Removed" && part["invert"] == json!(true);
                if !is_plain && !is_inverted {
                    return None;
                }
                steps.push(match pattern {
                    r"\p{N}" | r"\d" => Written::Digits(true),
                    r"\p{N}+" => Written::Digits(false),
                    pattern => Written::Pattern(pattern.to_owned()),
                });
            }
            _ => return None,
        }
    }
    let same = |step: &Step, written: &Written| match (step, written) {
        // Copies of the long list differ in how they write letters that look alike.
        (Step::Split(a), Written::Pattern(b)) if *a == DEEPSEEK_LETTERS => {
            b.starts_with("\\s?[A-Za-z\u{b5}\u{c0}-\u{d6}")
        }
        (Step::Split(a), Written::Pattern(b)) => a == b,
        (Step::Digits, Written::Digits(single)) => *single,
        _ => false,
    };
    CUTS.iter()
        .find(|(_, known)| {
            known.len() == steps.len() && known.iter().zip(&steps).all(|(a, b)| same(a, b))
        })
        .and_then(|(names, _)| names.first().copied())
}

enum Written {
    Pattern(String),
    Digits(bool),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_recognised() {
        for (names, _) in CUTS {
            for name in *names {
                assert_eq!(from_json(&to_json(name).unwrap()), Some(names[0]));
            }
        }
        assert_eq!(to_json("tekken"), None);
        assert_eq!(from_json(&json!({"type": "Whitespace"})), None);
    }
}
