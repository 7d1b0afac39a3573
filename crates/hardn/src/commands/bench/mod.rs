//! `hardn bench`: speed as a ratio to a named peer, side by side in one run.

mod decode;
mod lora;
mod methods;
pub(super) mod peer;
mod sampling;
mod scan;
mod sides;
mod train;

use std::fmt::Write as _;

use hardn_types::write_atomic;
use serde_json::json;

use crate::{
    args::BenchArgs,
    failure::{Failure, Outcome},
    output::{put, put_json},
};

const NAMES: [&str; 7] =
    ["lora-step", "train-step", "safecoder-step", "sven-step", "decode", "sampling", "scan"];

/// One line of the table.
struct Row {
    what: String,
    ours: String,
    peer: String,
    ratio: String,
}

pub(crate) fn run(args: BenchArgs) -> Outcome {
    if args.worker {
        return train::worker();
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    if let Some(unknown) = args.only.iter().find(|name| !NAMES.contains(&name.as_str())) {
        return Err(Failure::new(format!("there is no benchmark `{unknown}`"))
            .help(format!("one of: {}", NAMES.join(", "))));
    }
    let load = load();
    let mut rows = Vec::new();
    if wanted("lora-step") {
        rows.push(lora::lora_step(&args)?);
    }
    if wanted("train-step") {
        rows.extend(train::train_steps(&args)?);
    }
    if wanted("safecoder-step") {
        rows.extend(methods::safecoder_steps(&args)?);
    }
    if wanted("sven-step") {
        rows.extend(methods::sven_steps(&args)?);
    }
    if wanted("decode") {
        rows.extend(decode::decode(&args)?);
    }
    if wanted("sampling") {
        rows.push(sampling::sampling(&args)?);
    }
    if wanted("scan") {
        rows.extend(scan::scan(&args)?);
    }
    if args.json {
        for row in &rows {
            put_json(
                &json!({"what": row.what, "ours": row.ours, "peer": row.peer, "ratio": row.ratio}),
            )?;
        }
    }
    let table = table(&rows);
    if let Some(path) = &args.write {
        let threads = rayon::current_num_threads();
        let command: Vec<String> = std::env::args().skip(1).collect();
        let text = format!(
            "# Benchmarks\n\nMeasured by `hardn {}` on {threads} threads; `scripts/peers.sh` makes the environment of PyTorch, \
             with `--llama-cpp DIR` also llama.cpp, \
             `scripts/install-tools.sh --engines DIR` that of Semgrep and Bandit, `cargo install foxguard` the last. \
             Ours and the peer's turns alternate in one run; each figure is the median. Ratios below 1 are in our favour. \
             Speed depends on the machine and on what else it does{load}: measure on yours.\n\n{table}",
            command.join(" ")
        );
        write_atomic(path, text.as_bytes())?;
    }
    if args.json { Ok(()) } else { put(&table) }
}

/// How busy the machine was, as a phrase; empty where the system does not say.
fn load() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next().map(str::to_owned))
        .map_or_else(String::new, |load| format!(" (load average when this began: {load})"))
}

fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("| what | hardn | peer | hardn / peer |\n| --- | --- | --- | --- |\n");
    for row in rows {
        let _ = writeln!(text, "| {} | {} | {} | {} |", row.what, row.ours, row.peer, row.ratio);
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
