//! `hardn decode-bench`: what co-decoding costs or saves beside the bare base model, and whether drafts change a text.

mod cost;
mod ways;

use std::fmt::Write as _;

use hardn_decode::DecoderConfig;
use hardn_types::{Prompt, write_atomic};
use serde_json::{Value, json};

use self::{
    cost::Cost,
    ways::{Bench, Measured, Way},
};
use super::read_text;
use crate::{
    args::DecodeBenchArgs,
    decoding::Models,
    failure::{FOUND, Failure, Outcome},
    harden::{config::WorldConfig, inputs},
    output::{put, put_json, say},
};

/// Worlds of the lab that prompts are taken of at most.
const MAX_WORLDS: u64 = 40;

pub(crate) fn run(args: &DecodeBenchArgs, quiet: bool) -> Outcome {
    let decoder = DecoderConfig::load(&args.decoder, &args.set)?;
    if decoder.co_decoding.is_none() {
        return Err(Failure::new(format!(
            "decoder `{}` has no section [co_decoding]",
            args.decoder
        ))
        .help("use --decoder co-decoding, or a file with that section"));
    }
    let models = Models::load(&args.models)?;
    let security = models.security.clone().ok_or_else(|| {
        Failure::new("there is no security model")
            .help("give --security-model, --security-adapter or both")
    })?;
    let prompts = prompts(args)?;
    let bench = Bench::new(args, decoder, models, prompts, quiet);
    let ways = bench.ways()?;
    let measured = bench.measure(&ways)?;
    let differ = ways::differing(&measured);
    let n_samples = bench.n_samples();
    if args.verify {
        for (way, numbers) in &differ {
            let shown: Vec<String> = numbers.iter().take(5).map(ToString::to_string).collect();
            say(&format!(
                "{way}: {} samples differ from step by step: {}",
                numbers.len(),
                shown.join(", ")
            ));
        }
        let drafts = measured.iter().filter(|one| matches!(one.way, Way::CoDecoding(_))).count();
        put(&format!(
            "{n_samples} samples x {drafts} draft lengths, {} differ\n",
            differ.iter().map(|(_, numbers)| numbers.len()).sum::<usize>()
        ))?;
        return if differ.is_empty() { Ok(()) } else { Err(Failure::silent(FOUND)) };
    }
    let text = bench.longest_text()?;
    let cost = Cost::measure(&bench.models.base.model, &security.model, &text)?;
    let report = report(args, &bench, &measured, &cost);
    if args.json {
        put_json(&as_json(&measured, &cost, n_samples))?;
    } else {
        put(&report)?;
    }
    if let Some(path) = &args.write {
        write_atomic(path, report.as_bytes())?;
    }
    match differ.first() {
        None => Ok(()),
        Some((way, numbers)) => Err(Failure::new(format!(
            "{} samples of `{way}` differ from those drawn step by step",
            numbers.len()
        ))),
    }
}

/// The texts to complete: the user's, or scenarios of the lab.
fn prompts(args: &DecodeBenchArgs) -> Outcome<Vec<Prompt>> {
    let indices: Vec<u32> = (0..args.samples).collect();
    let prompt = |task: String, text: String| Prompt { task, text, indices: indices.clone() };
    if !args.prompt_file.is_empty() {
        let read = |path: &std::path::PathBuf| {
            Outcome::Ok(prompt(path.display().to_string(), read_text(path)?))
        };
        return args.prompt_file.iter().map(read).collect();
    }
    // From all over the suite; of further worlds where one has too few.
    let mut prompts = Vec::new();
    for seed in 1..=MAX_WORLDS {
        let wanted = args.prompts - prompts.len();
        let world = inputs::world(&WorldConfig { seed: Some(seed), ..WorldConfig::default() })?;
        let step = (world.scenarios.len() / wanted.max(1)).max(1);
        let chosen = world.scenarios.into_iter().step_by(step).take(wanted);
        prompts.extend(chosen.map(|one| prompt(format!("{seed}/{}", one.id), one.prompt)));
        if prompts.len() >= args.prompts {
            return Ok(prompts);
        }
    }
    Err(Failure::new(format!("the lab has no {} prompts", args.prompts)).help(format!(
        "--prompts {} -n {}",
        prompts.len(),
        args.prompts / prompts.len().max(1) + 1
    )))
}

fn report(args: &DecodeBenchArgs, bench: &Bench<'_>, measured: &[Measured], cost: &Cost) -> String {
    let mut text = String::new();
    let threads = rayon::current_num_threads();
    let command: Vec<String> = std::env::args().skip(1).collect();
    let _ = writeln!(
        text,
        "`hardn {}`: {} samples, {} stream{}, {threads} threads; ways alternate, medians of {} turns.\n",
        command.join(" "),
        bench.n_samples(),
        args.streams,
        if args.streams == 1 { "" } else { "s" },
        args.turns,
    );
    text.push_str("| way | tokens/s | x bare base | ms per 20 tokens | accepted |\n| --- | --: | --: | --: | --: |\n");
    for one in measured {
        let accepted =
            one.acceptance.map_or("–".to_owned(), |share| format!("{:.1} %", 100.0 * share));
        let rate = one.rate();
        let _ = writeln!(
            text,
            "| {} | {rate:.0} | {:.2} | {:.1} | {accepted} |",
            one.way,
            one.times(&measured[0]),
            20_000.0 / rate,
        );
    }
    let rows: Vec<String> =
        [1, 2, 4, 8, 16].iter().map(|&g| format!("v({g}) {:.2}", cost.base[g - 1])).collect();
    let _ = writeln!(
        text,
        "\nA pass of the base model over one token takes {:.2} ms; one of the security model c = {:.3} of that; of the \
         base model over g tokens of a text {}.\n",
        1e3 * cost.pass,
        cost.security,
        rows.join(", ")
    );
    text.push_str(
        "| accepted | best draft | x bare base, from c and v(g) |\n| --: | --: | --: |\n",
    );
    for percent in (50..=95).step_by(5) {
        let (g, gain) = cost.best(f64::from(percent) / 100.0);
        let _ = writeln!(text, "| {percent} % | {g} | {gain:.2} |");
    }
    text
}

fn as_json(measured: &[Measured], cost: &Cost, n_samples: usize) -> Value {
    let ways: Vec<Value> = measured
        .iter()
        .map(|one| {
            json!({
                "way": one.way.to_string(), "tokens_per_second": one.rate(), "times_bare_base": one.times(&measured[0]),
                "acceptance": one.acceptance,
            })
        })
        .collect();
    let curve: Vec<Value> = (50..=95)
        .step_by(5)
        .map(|percent| {
            let (draft, gain) = cost.best(f64::from(percent) / 100.0);
            json!({"acceptance": f64::from(percent) / 100.0, "draft": draft, "times_bare_base": gain})
        })
        .collect();
    json!({"samples": n_samples, "ways": ways, "base_pass_seconds": cost.pass, "c": cost.security, "v": cost.base, "curve": curve})
}
