//! `hardn scan`: the oracle on code.

use std::io::{IsTerminal, stdout};

use hardn_oracle::{
    Colours, Mode, Oracle, ScanOptions, scan_paths, write_jsonl, write_sarif, write_text,
};

use crate::{
    args::{ScanArgs, ScanFormat, ScanMode},
    failure::{FOUND, Failure, Outcome},
    output::put,
};

pub(crate) fn run(args: ScanArgs) -> Outcome {
    let mode = match args.mode {
        ScanMode::Faithful => Mode::Faithful,
        ScanMode::Snippet => Mode::Snippet,
    };
    let oracle = match &args.rules {
        Some(folder) => Oracle::from_folder(folder)?,
        None => Oracle::embedded(),
    };
    let options = ScanOptions { mode, language: args.language, ..ScanOptions::default() };
    let results = scan_paths(&oracle, &args.paths, &options, &|_, _| {})?;
    let mut out = Vec::new();
    let format = if args.json { ScanFormat::Json } else { args.format };
    match format {
        ScanFormat::Json => write_jsonl(&mut out, &results, mode)?,
        ScanFormat::Sarif => write_sarif(&mut out, &oracle, &results, mode)?,
        ScanFormat::Text => {
            let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            write_text(
                &mut out,
                &oracle,
                &results,
                if colour { Colours::ANSI } else { Colours::NONE },
            )?;
        }
    }
    put(&String::from_utf8_lossy(&out))?;
    let found = results.iter().any(|result| !result.analysis.findings.is_empty());
    if found { Err(Failure::silent(FOUND)) } else { Ok(()) }
}
