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
    /// Runs of digits stand alone.
    DigitRuns,
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
            Step::Split("[一-龥ࠀ-一가-퟿]+"),
            Step::Digits,
        ],
    ),
    (
        &["deepseek-llm"],
        &[
            Step::Split("[\r\n]"),
            Step::Split(DEEPSEEK_LETTERS),
            Step::Split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            Step::Split(r"\s+$"),
            Step::Split("[一-龥ࠀ-一가-퟿]+"),
            Step::DigitRuns,
        ],
    ),
];

/// The letters DeepSeek's first tokenizer names one by one.
const DEEPSEEK_LETTERS: &str = "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";

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
            Step::DigitRuns => parts.push(json!({"type": "Digits", "individual_digits": false})),
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
        (Step::Split(a), Written::Pattern(b)) => a == b,
        (Step::Digits, Written::Digits(single)) => *single,
        (Step::DigitRuns, Written::Digits(single)) => !*single,
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
