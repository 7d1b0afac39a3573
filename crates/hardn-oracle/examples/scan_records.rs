//! Reads JSON Lines with `id`, `language` and `code` from standard input and writes one line per record with its
//! findings: for measuring agreement with labelled corpora. `--faithful` and `--rules FOLDER` change the oracle.

use std::io::{BufRead, Write};

use hardn_oracle::{Mode, Oracle};
use hardn_types::Language;
use rayon::prelude::*;

#[derive(serde::Deserialize)]
struct Record {
    id: String,
    language: Language,
    code: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mode =
        if args.iter().any(|arg| arg == "--faithful") { Mode::Faithful } else { Mode::Snippet };
    let folder = args.iter().position(|arg| arg == "--rules").and_then(|at| args.get(at + 1));
    let oracle = match folder {
        Some(folder) => Oracle::from_folder(folder.as_ref())?,
        None => Oracle::embedded(),
    };
    let records: Vec<Record> = std::io::stdin()
        .lock()
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<_, Box<dyn std::error::Error>>>()?;
    let started = std::time::Instant::now();
    let lines: Vec<String> = records
        .par_iter()
        .map(|record| {
            let analysis = oracle.analyse(&record.code, record.language, mode);
            serde_json::json!({"id": record.id, "findings": analysis.findings, "not_analysed": analysis.not_analysed}).to_string()
        })
        .collect();
    let seconds = started.elapsed().as_secs_f64();
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    writeln!(std::io::stderr(), "{} records in {seconds:.2} s", records.len())?;
    Ok(())
}
