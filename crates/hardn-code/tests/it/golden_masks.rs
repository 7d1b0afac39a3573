//! Token masks against ones an independent script made with Python's own difflib.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, read_to_string},
    path::Path,
};

use flate2::read::GzDecoder;
use hardn_code::{MaskKind, TokenText, drop_reason, mask_pair, read_pairs_strict};
use hardn_types::{FixPair, Side, testing::reference_data};
use serde_json::Value;
use tokenizers::Tokenizer;

/// SVEN's and SafeCoder's limit.
const MAX_TOKENS: usize = 1024;

struct Golden {
    tokenizer: Tokenizer,
    sets: BTreeMap<&'static str, Vec<FixPair>>,
}

impl Golden {
    fn load() -> Option<Self> {
        let path = reference_data("codegen_tokenizer/tokenizer.json.gz")?;
        let mut bytes = Vec::new();
        GzDecoder::new(File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
        let mut sets = BTreeMap::new();
        for (set, path) in [
            ("sven_train", "sven/data_train_val/train"),
            ("sven_val", "sven/data_train_val/val"),
            ("new_train", "safecoder/data_train_val/train/sec-new-desc.jsonl.gz"),
            ("new_val", "safecoder/data_train_val/val/sec-new-desc.jsonl.gz"),
        ] {
            sets.insert(set, read_pairs_strict(&reference_data(path)?).unwrap());
        }
        Some(Self { tokenizer: Tokenizer::from_bytes(bytes).unwrap(), sets })
    }

    fn encode(&self, text: &str) -> (Vec<u32>, Vec<(usize, usize)>) {
        let encoding = self.tokenizer.encode_char_offsets(text, false).unwrap();
        (encoding.get_ids().to_vec(), encoding.get_offsets().to_vec())
    }

    /// The masks of the pair a golden row is about.
    fn masks(&self, row: &Value, kind: MaskKind) -> hardn_code::PairMasks {
        let set = row["set"].as_str().unwrap();
        let pair = &self.sets[set][row["i"].as_u64().unwrap() as usize];
        let (before, after) = (self.encode(&pair.before), self.encode(&pair.after));
        let before = TokenText { ids: &before.0, offsets: &before.1 };
        let after = TokenText { ids: &after.0, offsets: &after.1 };
        mask_pair(pair, before, after, kind).unwrap()
    }
}

fn rows(path: &Path) -> Vec<Value> {
    let text = read_to_string(GzDecoder::new(File::open(path).unwrap())).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Half-open stretches of ones.
fn runs(mask: &[u8]) -> Value {
    let mut runs: Vec<[usize; 2]> = Vec::new();
    for (i, _) in mask.iter().enumerate().filter(|(_, bit)| **bit == 1) {
        match runs.last_mut() {
            Some(run) if run[1] == i => run[1] = i + 1,
            _ => runs.push([i, i + 1]),
        }
    }
    serde_json::json!(runs)
}

#[test]
fn mixed_masks_equal_the_golden_ones() {
    let Some(path) = reference_data("golden_masks/char_masks.jsonl.gz") else { return };
    let Some(golden) = Golden::load() else { return };
    let mut kept: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let rows = rows(&path);
    for row in &rows {
        let masks = golden.masks(row, MaskKind::Mix);
        for (side, key) in [(Side::Secure, "sec"), (Side::Vulnerable, "vul")] {
            let (mask, expected) = (masks.side(side), &row[key]);
            assert_eq!(mask.len() as u64, expected["n"].as_u64().unwrap(), "{row}");
            assert_eq!(runs(mask), expected["runs"], "{key} of {row}");
            let is_kept = drop_reason(mask, MaskKind::Mix, MAX_TOKENS).is_none();
            assert_eq!(is_kept, expected["kept"].as_bool().unwrap(), "{key} of {row}");
            let set = row["set"].as_str().unwrap().to_owned();
            *kept.entry((set, key)).or_default() += usize::from(is_kept);
        }
    }
    assert_eq!(rows.len(), 1258);
    let count = |set: &str, side| kept[&(set.to_owned(), side)];
    assert_eq!((count("sven_train", "sec"), count("sven_train", "vul")), (544, 492));
    assert_eq!((count("sven_val", "sec"), count("sven_val", "vul")), (59, 54));
    assert_eq!((count("new_train", "sec"), count("new_train", "vul")), (357, 357));
    assert_eq!((count("new_val", "sec"), count("new_val", "vul")), (36, 35));
}

#[test]
fn ndiff_masks_equal_the_golden_ones() {
    let Some(path) = reference_data("golden_masks/ndiff_masks.jsonl.gz") else { return };
    let Some(golden) = Golden::load() else { return };
    let rows = rows(&path);
    let mut differ_from_opcodes = 0;
    for row in &rows {
        let masks = golden.masks(row, MaskKind::Ndiff);
        for (side, key) in [(Side::Secure, "after"), (Side::Vulnerable, "before")] {
            let (mask, expected) = (masks.side(side), &row[key]);
            assert_eq!(mask.len() as u64, expected["n"].as_u64().unwrap(), "{row}");
            assert_eq!(runs(mask), expected["runs"], "{key} of {row}");
            assert_eq!(masks.trim(side) as u64, expected["trim"].as_u64().unwrap(), "{row}");
        }
        let plain = golden.masks(row, MaskKind::Difflib);
        let same = plain.secure == masks.secure && plain.vulnerable == masks.vulnerable;
        differ_from_opcodes += usize::from(!same);
    }
    assert_eq!(rows.len(), 1170);
    // The golden set's notes count 12.6 % of the pairs whose opcodes, with the same gaps filled, mark otherwise;
    // without that filling there are more.
    assert!(differ_from_opcodes >= 147, "{differ_from_opcodes}");
}

#[test]
fn long_pairs_take_reasonable_time() {
    let Some(golden) = Golden::load() else { return };
    let started = std::time::Instant::now();
    let mut n_long = 0;
    for (set, pairs) in &golden.sets {
        for (i, pair) in pairs.iter().enumerate() {
            if pair.before.len().max(pair.after.len()) > 6_000 {
                n_long += 1;
                golden.masks(&serde_json::json!({"set": set, "i": i}), MaskKind::Ndiff);
            }
        }
    }
    let secs = started.elapsed().as_secs_f64();
    assert!(n_long > 50, "{n_long}");
    assert!(secs < 300.0, "{n_long} long pairs took {secs:.1} s");
}
