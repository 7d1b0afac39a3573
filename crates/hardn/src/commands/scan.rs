//! `hardn scan`: the oracle on code.

use std::{
    io::{IsTerminal, stderr, stdout},
    ops::ControlFlow,
    sync::Mutex,
    time::{Duration, Instant},
};

use hardn_oracle::{
    Baseline, Colours, FileResult, Mode, Oracle, OracleError, ScanCache, ScanFilter, ScanOptions,
    ScanSummary, apply_suppressions, scan_paths, today, write_engine_failures, write_jsonl,
    write_sarif, write_sarif_runs, write_text,
};

use crate::{
    args::{FailOn, ScanArgs, ScanFormat, ScanMode},
    assets::cache_folder,
    commands::rules,
    failure::{FOUND, Failure, Outcome},
    oracles::Asked,
    output::{Progress, put_to, say},
    stop,
};

/// A scan that takes longer shows how far it is.
const QUIET_FOR: Duration = Duration::from_millis(300);

pub(crate) fn run(args: ScanArgs, quiet: bool) -> Outcome {
    let started = Instant::now();
    let filter = ScanFilter { cwe: args.cwe.clone(), rules: args.rule.clone() };
    let baseline = args.baseline.as_deref().map(Baseline::read).transpose()?;
    let oracle = Oracle::new(rules::load(args.rules.as_deref(), &args.models)?);
    let cache = cache(&args);

    let mut results = scan(&oracle, &args, cache.as_ref(), quiet)?;
    let asked = args.oracle.join(&oracle, &mut results)?;
    if let Some(asked) = asked.as_ref().filter(|_| args.oracle.agreement) {
        asked.put_agreement(args.json)?;
        return asked.check();
    }
    if !args.no_suppressions {
        apply_suppressions(&mut results, &today());
    }
    filter.apply(&mut results);
    if let Some(path) = &args.write_baseline {
        Baseline::of(&results).write(path)?;
    }
    let stale = baseline.map_or(0, |baseline| baseline.apply(&mut results, &filter));
    let summary = ScanSummary {
        stale,
        cached: cache.as_ref().map_or(0, ScanCache::hits),
        seconds: started.elapsed().as_secs_f64(),
        ..ScanSummary::of(&results)
    };
    write(&args, &oracle, &results, &summary, asked.as_ref())?;
    if let Some(asked) = &asked {
        asked.check()?;
    }
    if let Some(path) = &args.write_baseline {
        let known = summary.findings + summary.in_baseline;
        say(&format!("{} holds {known} finding(s)", path.display()));
        return Ok(());
    }
    let failed = match args.fail_on {
        FailOn::Never => false,
        FailOn::Findings => summary.findings > 0,
        FailOn::NotAnalysed => summary.findings > 0 || summary.not_analysed > 0,
    };
    let strict = args.strict_suppressions && summary.suppression_warnings > 0;
    if failed || strict { Err(Failure::silent(FOUND)) } else { Ok(()) }
}

fn cache(args: &ScanArgs) -> Option<ScanCache> {
    if args.no_cache {
        return None;
    }
    let folder = args.cache.clone().unwrap_or_else(|| cache_folder().join("scan"));
    Some(ScanCache::new(folder))
}

fn mode(args: &ScanArgs) -> Mode {
    match args.mode {
        ScanMode::Faithful => Mode::Faithful,
        ScanMode::Snippet => Mode::Snippet,
    }
}

/// Files -> results.
fn scan(
    oracle: &Oracle,
    args: &ScanArgs,
    cache: Option<&ScanCache>,
    quiet: bool,
) -> Outcome<Vec<FileResult>> {
    let options = ScanOptions {
        mode: mode(args),
        language: args.language,
        stdin_name: args.stdin_path.clone(),
        max_bytes: args.max_bytes,
        hidden: args.hidden,
        no_ignore: args.no_ignore,
        exclude: args.exclude.clone(),
        keep_code: args.oracle.asks_others(),
    };
    stop::flag();
    let shown = !quiet && stderr().is_terminal();
    let started = Instant::now();
    let bar: Mutex<Option<Progress>> = Mutex::new(None);
    let watch = |done: usize, total: usize| {
        if shown && started.elapsed() > QUIET_FOR {
            // Whoever finds the bar busy goes on.
            if let Ok(mut bar) = bar.try_lock() {
                let bar =
                    bar.get_or_insert_with(|| Progress::new("scan", "files", total as u64, false));
                bar.set(done as u64, "");
            }
        }
        if stop::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let results = scan_paths(oracle, &args.paths, &options, cache, &watch);
    if let Ok(Some(bar)) = bar.into_inner() {
        bar.clear();
    }
    match results {
        Err(OracleError::Interrupted) => Err(Failure::interrupted(match cache {
            Some(_) => "files that were done are in the cache; run it again to go on",
            None => "nothing was kept; with a cache the next run would go on here",
        })),
        other => Ok(other?),
    }
}

/// Results -> output.
fn write(
    args: &ScanArgs,
    oracle: &Oracle,
    results: &[FileResult],
    summary: &ScanSummary,
    asked: Option<&Asked>,
) -> Outcome {
    let format = match (args.json, args.sarif) {
        (true, _) => ScanFormat::Json,
        (_, true) => ScanFormat::Sarif,
        _ => args.format,
    };
    let mut out = Vec::new();
    match format {
        ScanFormat::Json => {
            write_jsonl(&mut out, results, mode(args))?;
            if let Some(asked) = asked {
                write_engine_failures(&mut out, results, &asked.engines)?;
            }
            // Nothing but rows stands in the output.
            for result in results {
                for odd in &result.warnings {
                    let line = odd.line.map(|line| format!(":{line}")).unwrap_or_default();
                    say(&format!("{}{line}: warning: {}", result.path, odd.message));
                }
            }
        }
        ScanFormat::Sarif => match asked {
            Some(asked) => write_sarif_runs(&mut out, oracle, results, mode(args), &asked.engines)?,
            None => write_sarif(&mut out, oracle, results, mode(args))?,
        },
        ScanFormat::Text => {
            let colour = args.output.is_none()
                && stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none();
            let colours = if colour { Colours::ANSI } else { Colours::NONE };
            write_text(&mut out, oracle, results, summary, colours)?;
        }
    }
    put_to(args.output.as_deref(), &String::from_utf8_lossy(&out))
}
