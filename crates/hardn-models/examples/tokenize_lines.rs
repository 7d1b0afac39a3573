//! Ids and offsets of every text of a JSON list, as JSON Lines: `tokenize_lines FOLDER TEXTS.json`.

use std::{error::Error, io::Write};

use hardn_models::Tokenizer;
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tokenize_lines FOLDER TEXTS.json".into());
    };
    let tokenizer = Tokenizer::load(folder.as_ref())?;
    let texts: Vec<String> = serde_json::from_slice(&std::fs::read(file)?)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for text in texts {
        let plain = tokenizer.encode(&text)?;
        let whole = tokenizer.encode_with(&text, true)?;
        let row = json!({"ids": plain.ids, "offsets": plain.offsets, "whole": whole.ids});
        writeln!(out, "{row}")?;
    }
    Ok(out.flush()?)
}
