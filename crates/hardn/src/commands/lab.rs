//! `hardn lab`: our own small world, and the models that come from nothing else.

use std::{fmt::Write as _, path::Path};

use hardn_eval::{SandboxTrials, TrialKind, TrialRunner};
use hardn_lab::{
    BodyKind, CardSection, Cell, Drawn, Library, Part, Rng, Theme, World, WorldOptions,
};
use hardn_models::{LAB_SPECIALS, SaveDtype, Tokenizer, train_bpe};
use hardn_oracle::{Mode, Oracle};
use hardn_train::{Ended, PretrainRecipe, TokenizedDocuments, pretrain as pretrain_model};
use hardn_types::{Label, TestVerdict, write_atomic};
use rayon::prelude::*;

use crate::{
    args::{LabCommand, WorldArgs},
    assets::{load_model, load_tokenizer},
    failure::{Context, FOUND, Failure, Outcome},
    harden::training::Bar,
    limits::limits,
    output::{put, put_json, say},
    stop,
};

pub(crate) fn run(command: LabCommand, quiet: bool) -> Outcome {
    match command {
        LabCommand::Generate { world, out, json } => generate(&world, &out, json),
        LabCommand::Check { theme, idioms, n } => check(theme.as_deref(), idioms.as_deref(), n),
        LabCommand::Pretrain { recipe, world, out, set } => {
            pretrain(&PretrainRecipe::load(&recipe, &set)?, &world, &out, quiet)
        }
        LabCommand::Widen { model, times, out } => widen(&model, times, &out),
        LabCommand::Card { world, json } => card(&world, json),
    }
}

fn options(args: &WorldArgs, documents: usize) -> WorldOptions {
    let mut options = WorldOptions {
        seed: args.seed,
        idioms: args.idioms.clone(),
        extra: args.extra.clone(),
        n_pretrain_documents: args.documents.unwrap_or(documents),
        ..WorldOptions::default()
    };
    if let Some(pairs) = args.pairs {
        options.n_pairs = pairs;
    }
    options
}

fn make(args: &WorldArgs, documents: usize) -> Outcome<World> {
    hardn_lab::generate(&options(args, documents)).context("generating the lab's world")
}

fn generate(args: &WorldArgs, out: &Path, json: bool) -> Outcome {
    let world = make(args, WorldOptions::default().n_pretrain_documents)?;
    world.write(out)?;
    if json {
        return put_json(&world.manifest);
    }
    for (file, rows) in &world.manifest.counts {
        say(&format!("{rows:>8} rows  {}", out.join(file).display()));
    }
    put(&format!("{}\n", out.display()))
}

fn widen(model: &str, times: usize, out: &Path) -> Outcome {
    let wide = hardn_models::widen(&load_model(model, None)?, times)?;
    wide.save(out, SaveDtype::F32)?;
    load_tokenizer(model)?.save(out)?;
    say(&format!("{} parameters", wide.config().parameters()));
    put(&format!("{}\n", out.display()))
}

/// Programs of a world drawn anew, run, and held against their labels.
fn check(theme: Option<&str>, idioms: Option<&Path>, n: usize) -> Outcome {
    let library = Library::embedded_with(idioms)?;
    let mut misses: Vec<String> =
        hardn_lab::check(&library).iter().map(ToString::to_string).collect();
    let runner = SandboxTrials::new(limits())?;
    let mut programs = 0;
    for part in library.themes().filter(|t| theme.is_none_or(|wanted| t.id.contains(wanted))) {
        let cells = cells(part);
        let found: Vec<Vec<String>> = cells
            .par_iter()
            .map(|cell| {
                let mut misses = Vec::new();
                for i in 0..n {
                    let name = format!("check/{}/{cell:?}/{i}", part.id);
                    let drawn =
                        library.draw(&part.id, *cell, Part::Test, &mut Rng::new(1, &name))?;
                    misses.extend(check_drawn(&runner, part, &drawn)?);
                }
                Ok(misses)
            })
            .collect::<Outcome<_>>()?;
        let found: Vec<String> = found.into_iter().flatten().collect();
        programs += cells.len() * n;
        say(&format!("{:<28} {:>4} prompts  {} misses", part.id, cells.len() * n, found.len()));
        misses.extend(found);
    }
    for miss in misses.iter().take(20) {
        put(&format!("{miss}\n"))?;
    }
    put(&format!("{programs} prompts checked, {} misses\n", misses.len()))?;
    if misses.is_empty() { Ok(()) } else { Err(Failure::silent(FOUND)) }
}

/// Every operation, setting and style of a theme.
fn cells(theme: &Theme) -> Vec<Cell> {
    let mut cells = Vec::new();
    for operation in 0..theme.operations.len() {
        for setting in 0..theme.settings.len() {
            cells.extend((0..theme.styles.len()).map(|style| Cell { operation, setting, style }));
        }
    }
    cells
}

/// What the tests say of each body of a drawn prompt, where it is not what its label says.
fn check_drawn(runner: &SandboxTrials, theme: &Theme, drawn: &Drawn<'_>) -> Outcome<Vec<String>> {
    let language = theme.language;
    let trusted = theme.settings[drawn.cell().setting].trusted;
    let function_test = drawn.function_test()?;
    let attack_test = drawn.attack_test()?;
    let passes = |body: &str, kind: TrialKind, test: &str| -> Outcome<bool> {
        let verdict = runner.run(&format!("{}{body}", drawn.prompt), test, language, kind)?;
        Ok(matches!(verdict, Some(TestVerdict::Passed | TestVerdict::Held)))
    };
    let mut misses = Vec::new();
    let kinds = if trusted {
        vec![BodyKind::Trusted]
    } else {
        vec![BodyKind::Secure, BodyKind::Vulnerable]
    };
    for kind in kinds {
        for i in 0..drawn.n_bodies(kind) {
            let body = drawn.body(kind, i)?;
            let idiom = drawn.idiom(kind, i);
            let mut miss = |what: &str| misses.push(format!("{} {idiom}: {what}", drawn.family()));
            if !passes(&body, TrialKind::Function, &function_test)? {
                miss("fails its function test");
            }
            let Some(attack_test) = attack_test.as_deref().filter(|_| !trusted) else { continue };
            match (kind, passes(&body, TrialKind::Attack, attack_test)?) {
                (BodyKind::Secure, false) => miss("is called secure and was attacked"),
                (BodyKind::Vulnerable, true) => miss("is called vulnerable and held"),
                _ => {}
            }
        }
    }
    let nothing = hardn_lab::do_nothing(&drawn.prompt, language);
    if passes(&nothing, TrialKind::Function, &function_test)? {
        misses.push(format!("{}: doing nothing passes the function test", drawn.family()));
    }
    Ok(misses)
}

fn pretrain(recipe: &PretrainRecipe, args: &WorldArgs, out: &Path, quiet: bool) -> Outcome {
    let world = make(args, WorldOptions::default().n_pretrain_documents)?;
    if world.pretrain.is_empty() {
        return Err(
            Failure::new("there are no documents to train on").help("give --documents 1 or more")
        );
    }
    let texts: Vec<String> = world.pretrain.into_iter().map(|document| document.text).collect();
    let work = out.join("pretraining");
    let tokenizer_folder = work.join("tokenizer");
    let tokenizer = if tokenizer_folder.join("tokenizer.json").exists() {
        Tokenizer::load(&tokenizer_folder)?
    } else {
        say("training the tokenizer");
        let tokenizer =
            train_bpe(texts.iter().map(String::as_str), recipe.model.vocab_size, LAB_SPECIALS)?;
        tokenizer.save(&tokenizer_folder)?;
        tokenizer
    };
    let documents = TokenizedDocuments::new(&texts, &tokenizer, Some(&work))?;
    say(&format!("{} documents, {} tokens", documents.len(), documents.n_tokens()));
    let mut bar = Bar::new("pretraining", quiet, None);
    let (model, outcome) =
        pretrain_model(recipe, &tokenizer, &documents, None, &work, &mut bar, &stop::flag())?;
    if let Ended::Interrupted { step } = outcome.ended {
        return Err(Failure::interrupted(format!(
            "saved after step {step}; run the same command to go on"
        )));
    }
    for name in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ] {
        let from = work.join("model").join(name);
        if from.exists() {
            let bytes = std::fs::read(&from).map_err(|error| {
                Failure::new(format!("cannot read {}: {error}", from.display()))
            })?;
            write_atomic(&out.join(name), &bytes)?;
        }
    }
    let card = model_card(recipe, &world.manifest, &documents, &outcome, &model)?;
    write_atomic(&out.join("CARD.md"), card.as_bytes())?;
    put(&format!("{}\n", out.display()))
}

/// The card shipped beside a model's weights.
fn model_card(
    recipe: &PretrainRecipe,
    manifest: &hardn_lab::Manifest,
    documents: &TokenizedDocuments,
    outcome: &hardn_train::Outcome,
    model: &hardn_models::Model,
) -> Outcome<String> {
    let mut card = format!(
        "# {}\n\nA Llama-style model of {} parameters, trained from nothing by `hardn lab pretrain` on text of the lab. It writes small \
         Python and C functions, secure or not as its text was. It is a lab model: good for trying methods, and for nothing else.\n\n",
        recipe.title,
        model.config().parameters()
    );
    let _ = write!(
        card,
        "- corpus: lab version {}, world seed {}, themes SHA-256 `{}`, {} documents, {} tokens ({} vocabulary)\n\
         - training: {} steps, {} tokens seen, seed {}\n- weights: fingerprint `{}`, kept in f16\n\
         - vulnerable share of the security programs in the corpus: {:.2}\n\n",
        manifest.lab_version,
        manifest.seed,
        &manifest.themes_sha256[..16],
        documents.len(),
        documents.n_tokens(),
        recipe.model.vocab_size,
        outcome.steps,
        outcome.tokens,
        recipe.training.seed,
        model.fingerprint()?,
        manifest.vulnerable_share_drawn.unwrap_or(manifest.vulnerable_share_mean),
    );
    card.push_str("| step | training loss | validation loss |\n| --- | --- | --- |\n");
    let every = outcome.curve.len().div_ceil(20).max(1);
    let rows = outcome.curve.iter().enumerate();
    for (_, point) in rows.filter(|(i, _)| i % every == 0 || i + 1 == outcome.curve.len()) {
        let number =
            |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.3}"));
        let validation = point.validation.get("all").copied();
        let _ =
            writeln!(card, "| {} | {} | {} |", point.step, number(point.train), number(validation));
    }
    card.push_str("\nLosses are in nats per token.\n");
    Ok(card)
}

#[derive(Default, serde::Serialize)]
struct Agreement {
    programs: usize,
    vulnerable: usize,
    flagged_vulnerable: usize,
    flagged_secure: usize,
    not_analysed: usize,
}

fn card(args: &WorldArgs, json: bool) -> Outcome {
    let world = make(args, WorldOptions::default().n_pretrain_documents)?;
    let oracle = Oracle::embedded();
    let mut rows: std::collections::BTreeMap<String, Agreement> = std::collections::BTreeMap::new();
    for scenario in world.scenarios.iter().filter(|scenario| scenario.cwe.is_some()) {
        let Some(cwe) = scenario.cwe else { continue };
        let row = rows.entry(format!("{} {}", cwe, scenario.language)).or_default();
        for solution in &scenario.solutions {
            let code = format!("{}{}", scenario.prompt, solution.text);
            let analysis = oracle.analyse(&code, scenario.language, Mode::Snippet);
            let flagged = analysis
                .findings
                .iter()
                .any(|f| f.cwe.iter().any(|found| hardn_eval::is_related(cwe, *found)));
            let vulnerable = solution.label == Label::Vulnerable;
            row.programs += 1;
            row.vulnerable += usize::from(vulnerable);
            row.flagged_vulnerable += usize::from(vulnerable && flagged);
            row.flagged_secure += usize::from(!vulnerable && flagged);
            row.not_analysed += usize::from(analysis.not_analysed.is_some());
        }
    }
    if json {
        return put_json(
            &serde_json::json!({"manifest": world.manifest, "oracle_agreement": rows}),
        );
    }
    let percent = |part: usize, of: usize| {
        if of == 0 { "–".to_owned() } else { format!("{:.0} %", 100.0 * part as f64 / of as f64) }
    };
    let table = rows.iter().map(|(name, row)| {
        let secure = row.programs - row.vulnerable;
        vec![
            name.clone(),
            row.programs.to_string(),
            percent(row.flagged_vulnerable, row.vulnerable),
            percent(row.flagged_secure, secure),
            percent(row.flagged_vulnerable + secure - row.flagged_secure, row.programs),
            row.not_analysed.to_string(),
        ]
    });
    let section = CardSection {
        title: "Agreement of the oracle with the ground truth".to_owned(),
        text: "Every reference solution of the security scenarios, validation and test, in snippet mode.".to_owned(),
        header: ["weakness", "programs", "vulnerable flagged", "secure flagged", "agreement", "not analysed"]
            .map(str::to_owned)
            .to_vec(),
        rows: table.collect(),
    };
    put(&hardn_lab::card(&world.manifest, &[section]))
}
