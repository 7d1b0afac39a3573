//! Drawing an arm's samples.

use std::{collections::BTreeMap, sync::Arc};

use hardn_decode::{DecoderConfig, LocalGenerator, LocalModel, StopRule, arm_seed};
use hardn_eval::Store;
use hardn_models::{DecodeModel, Model, Tokenizer};
use hardn_train::{DataRecipe, Format};
use hardn_types::{CutRule, Generator, Language, Prompt, Sample, Scenario};
use sha2::{Digest, Sha256};

use super::{
    Job,
    arms::{ArmKind, ArmPlan, secure_request},
    config::{DecodedModel, DecodingConfig},
    constant::ConstantPolicy,
    decoder_sets, say_resumed, stopped_or,
};
use crate::{
    assets::load_model,
    decoding::same_vocabulary,
    failure::{Failure, Outcome},
    inspector::OracleInspector,
    output::Progress,
    stop,
};

/// Samples to be drawn from a model.
pub(crate) struct Drawing<'a> {
    pub(crate) suite: &'a [Scenario],
    /// What the model reads for a scenario.
    pub(crate) prompt: &'a dyn Fn(&Scenario) -> Outcome<String>,
    /// The name under which samples are kept, and what they are called.
    pub(crate) arm: &'a str,
    pub(crate) title: &'a str,
    pub(crate) n: u32,
    pub(crate) decoder: DecoderConfig,
    pub(crate) model: Arc<DecodeModel>,
    pub(crate) fingerprint: &'a str,
    /// The security model of co-decoding.
    pub(crate) security: Option<(Arc<DecodeModel>, String)>,
}

/// Draws what an arm still lacks.
pub(crate) fn draw(
    job: &Job<'_>,
    arm: &ArmPlan,
    model: Arc<DecodeModel>,
    fingerprint: &str,
    samples: &mut Store<Sample>,
) -> Outcome {
    let drawing = Drawing {
        suite: &job.inputs.suite,
        prompt: &|scenario| prompt_text(job, arm, scenario),
        arm: &arm.id,
        title: &arm.title,
        n: job.config.eval.samples,
        decoder: DecoderConfig::load(&job.config.eval.decoder, &decoder_sets(job.config))?,
        model,
        fingerprint,
        security: None,
    };
    draw_missing(job, drawing, samples)
}

/// Draws what an arm of `[[decoding]]` still lacks, and says what it was drawn with.
pub(crate) fn draw_decoded(
    job: &Job<'_>,
    arm: &ArmPlan,
    section: &DecodingConfig,
    hardened: Option<&Model>,
    samples: &mut Store<Sample>,
) -> Outcome<String> {
    let hardened = || hardened.ok_or_else(|| Failure::new("no model was hardened"));
    let pack =
        |model: &Model| Outcome::Ok((Arc::new(DecodeModel::new(model)?), model.fingerprint()?));
    let (model, fingerprint) = match section.model {
        DecodedModel::Base => pack(&job.base.sharing_weights())?,
        DecodedModel::Hardened => pack(hardened()?)?,
    };
    let decoder = section.decoder()?;
    let security = match (&section.security_model, &section.security_adapter) {
        _ if decoder.co_decoding.is_none() => None,
        (None, None) => Some(pack(hardened()?)?),
        (name, adapter) => {
            let name = name.as_ref().unwrap_or(&job.config.model);
            same_vocabulary(&job.config.model, &job.tokenizer, name)?;
            Some(pack(&load_model(name, adapter.as_deref())?)?)
        }
    };
    let watched =
        security.as_ref().map_or(String::new(), |(_, print)| format!(" watched by {print}"));
    let drawing = Drawing {
        suite: &job.inputs.suite,
        prompt: &|scenario| prompt_text(job, arm, scenario),
        arm: &arm.id,
        title: &arm.title,
        n: job.config.eval.samples,
        decoder,
        model,
        fingerprint: &fingerprint,
        security,
    };
    draw_missing(job, drawing, samples)?;
    Ok(format!("{fingerprint}{watched}"))
}

/// Draws what the store lacks of a drawing.
pub(crate) fn draw_missing(
    job: &Job<'_>,
    drawing: Drawing<'_>,
    samples: &mut Store<Sample>,
) -> Outcome {
    let Drawing { suite, prompt, arm, title, n, decoder, model, fingerprint, security } = drawing;
    let rules: BTreeMap<String, StopRule> =
        suite.iter().map(|scenario| (scenario.id.clone(), stop_rule(scenario))).collect();
    let seed = arm_seed(job.config.seed, arm);
    let generator = LocalGenerator::new(
        model,
        Arc::clone(&job.tokenizer),
        fingerprint.to_owned(),
        decoder,
        seed,
    )?
    .with_stop_rules(move |prompt| rules.get(&prompt.task).copied().unwrap_or_default())
    .with_end_tokens(job.end_tokens.iter().copied())
    .with_stop(stop::flag());
    let generator = match security {
        None => generator,
        Some((model, fingerprint)) => {
            generator.with_security(Arc::new(LocalModel::from(model)), &fingerprint)?
        }
    };
    let languages: BTreeMap<String, Language> =
        suite.iter().map(|scenario| (scenario.id.clone(), scenario.language)).collect();
    let inspector = OracleInspector::of_tasks(languages.clone());
    let name = inspector.name();
    let generator = generator
        .with_languages(move |prompt| languages.get(&prompt.task).copied())
        .with_inspector(Arc::new(inspector), &name);
    let texts: BTreeMap<&str, Prompt> = suite
        .iter()
        .map(|scenario| {
            let (task, text) = (scenario.id.clone(), prompt(scenario)?);
            Ok((scenario.id.as_str(), Prompt { task, text, indices: (0..n).collect() }))
        })
        .collect::<Outcome<_>>()?;
    // A sample of another model, prompt or decoder is drawn again.
    samples.retain(|sample| {
        sample.arm != arm
            || texts
                .get(sample.task.as_str())
                .is_some_and(|prompt| sample.key == generator.key(prompt, sample.index))
    });
    let mut prompts: Vec<Prompt> = Vec::new();
    let mut total = 0;
    for scenario in suite {
        let missing = samples.missing(arm, &scenario.id, n);
        if let Some(prompt) = texts.get(scenario.id.as_str()).filter(|_| !missing.is_empty()) {
            total += missing.len();
            prompts.push(Prompt { indices: missing, ..prompt.clone() });
        }
    }
    let all = texts.len() * n as usize;
    say_resumed(&format!("samples of {arm}"), all - total, all, job.quiet);
    if total == 0 {
        return Ok(());
    }
    let mut progress = Progress::new("drawing samples", "samples", total as u64, job.quiet);
    let mut done = 0;
    let result = generator.generate(arm, &prompts, &mut |sample| {
        samples.append(sample)?;
        done += 1;
        progress.set(done, title);
        Ok(())
    });
    stopped_or(result.map_err(Failure::new), "drawing samples")?;
    progress.finish(&format!("{done} of {title}, {} tokens", generator.n_tokens()));
    Ok(())
}

/// The samples of the constant control.
pub(crate) fn constant(job: &Job<'_>, arm: &ArmPlan, samples: &mut Store<Sample>) -> Outcome {
    let policy = ConstantPolicy::from_pairs(&job.inputs.pairs);
    for scenario in &job.inputs.suite {
        let Some(text) = policy.completion(scenario) else { continue };
        let key = format!("{:x}", Sha256::digest(format!("{}\0{}\0{text}", arm.id, scenario.id)));
        let there = samples.rows().values().any(|sample| sample.key == key);
        if !there && let Some(sample) = policy.sample(&arm.id, scenario, key) {
            samples.append(sample)?;
        }
    }
    Ok(())
}

/// Where generation may end early: only where cutting would cut there too.
pub(crate) fn stop_rule(scenario: &Scenario) -> StopRule {
    match scenario.cut {
        CutRule::Function => StopRule::of(scenario.language),
        CutRule::Sven | CutRule::None => StopRule::None,
    }
}

/// What a model reads that was trained in the form of `data`.
pub(crate) fn trained_prompt(
    tokenizer: &Tokenizer,
    data: Option<&DataRecipe>,
    scenario: &Scenario,
) -> Outcome<String> {
    if let Some(data) = data.filter(|data| data.format != Format::Completion) {
        let Scenario { language, instruction, prompt, .. } = scenario;
        return Ok(hardn_train::request(tokenizer, data, *language, instruction, prompt)?);
    }
    Ok(scenario.prompt.clone())
}

/// What an arm's model reads.
fn prompt_text(job: &Job<'_>, arm: &ArmPlan, scenario: &Scenario) -> Outcome<String> {
    if arm.is_trained() {
        let data = job.recipe.as_ref().map(|recipe| &recipe.data);
        return trained_prompt(&job.tokenizer, data, scenario);
    }
    if arm.kind == ArmKind::SecurePrompt {
        let comment =
            if scenario.language == Language::C { "//" } else { scenario.language.comment() };
        return Ok(format!("{}{}", secure_request(comment), scenario.prompt));
    }
    Ok(scenario.prompt.clone())
}

#[cfg(test)]
mod tests {
    use hardn_train::InstructionTemplate;

    use super::*;

    #[test]
    fn models_are_asked_in_the_form_the_lab_taught_them() {
        let asked = InstructionTemplate::default().render(Language::C, "Add.", "int add(");
        assert_eq!(asked, hardn_lab::instruction_prompt("c", "Add.", "") + "int add(");
    }
}
