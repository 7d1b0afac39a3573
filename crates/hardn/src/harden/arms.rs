//! The arms of a run: the model before and after, and what it has to beat.

use hardn_train::LossKind;
use hardn_types::Role;

use super::config::{DecodedModel, DecodingConfig, RunConfig, plain};

/// An arm's id in records, metrics and folders.
pub(crate) type ArmId = &'static str;

/// The name of the base model's arm.
pub(crate) const BASE: ArmId = "base";

/// What an arm is before anything is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArmPlan {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) role: Role,
    pub(crate) kind: ArmKind,
}

/// Where an arm's samples come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArmKind {
    /// The base model.
    Base,
    /// The base model after training by the recipe.
    Trained { shuffled: bool, utility_only: bool },
    /// The model that was trained on its own samples.
    Improved,
    /// A constant completion per weakness; no model.
    Constant,
    /// The base model, asked for secure code.
    SecurePrompt,
    /// A model of the run under another decoder: the number of its section.
    Decoded { number: usize, hardened: bool },
}

impl ArmPlan {
    /// Whether its model is trained, rather than the base or none.
    pub(crate) fn is_trained(&self) -> bool {
        matches!(
            self.kind,
            ArmKind::Trained { .. } | ArmKind::Improved | ArmKind::Decoded { hardened: true, .. }
        )
    }
}

/// The id of the arm of `hardn harden` that counts.
pub(crate) const HARDENED: ArmId = "hardened";
/// The id of the arm of `hardn improve` that counts.
pub(crate) const IMPROVED: ArmId = "improved";

/// The arms a configuration asks for, in the order of the tables.
pub(crate) fn plan(config: &RunConfig, has_utility: bool) -> Vec<ArmPlan> {
    let arm = |id: &str, title: &str, description: &str, role, kind| ArmPlan {
        id: id.to_owned(),
        title: title.to_owned(),
        description: description.to_owned(),
        role,
        kind,
    };
    let mut arms = vec![arm(BASE, BASE, "the model as it came", Role::Base, ArmKind::Base)];
    let controls = config.controls;
    let trained = |shuffled, utility_only| ArmKind::Trained { shuffled, utility_only };
    let control = |id, title, description, kind| arm(id, title, description, Role::Control, kind);
    if config.train.is_some() {
        let (id, description, kind) = if config.improve.is_some() {
            let description = "the same model after training on its own samples, those that were judged secure and correct";
            (IMPROVED, description, ArmKind::Improved)
        } else {
            let description = "the same model after training by the recipe";
            (HARDENED, description, trained(false, false))
        };
        arms.push(arm(id, id, description, Role::Hardened, kind));
    }
    arms.extend(config.decoding.iter().enumerate().map(decoded));
    if config.train.is_some() {
        if controls.utility_only && has_utility {
            let description = "control: as many steps on utility rows alone";
            arms.push(control("utility_only", "utility only", description, trained(false, true)));
        }
        if controls.shuffled_labels {
            let description =
                "control: the same training with the two sides of half of the pairs swapped";
            arms.push(control(
                "shuffled_labels",
                "shuffled labels",
                description,
                trained(true, false),
            ));
        }
        if controls.constant_idiom {
            let description = "control: the commonest secure completion of the fix pairs' weakness, with the prompt's names, whatever the prompt asks; \
                               nothing on utility tasks and on weaknesses without a pair";
            arms.push(control("constant_idiom", "constant idiom", description, ArmKind::Constant));
        }
    }
    if controls.secure_prompt {
        let description =
            "control: the base model with a comment that asks for secure code before the prompt";
        arms.push(control(
            "secure_prompt",
            "asks for secure code",
            description,
            ArmKind::SecurePrompt,
        ));
    }
    arms
}

/// The arm of a section `[[decoding]]`.
fn decoded((number, section): (usize, &DecodingConfig)) -> ArmPlan {
    let hardened = section.model == DecodedModel::Hardened;
    let model = if hardened { "the hardened model" } else { "the base model" };
    let sets: Vec<String> =
        section.set.iter().map(|(key, value)| format!(", {key} {}", plain(value))).collect();
    ArmPlan {
        id: section.name.clone(),
        title: section.name.clone(),
        description: format!("{model}, decoded by {}{}", section.decoder, sets.concat()),
        role: Role::Decoded,
        kind: ArmKind::Decoded { number, hardened },
    }
}

/// The loss an arm is trained with.
pub(crate) fn loss_kind(of_recipe: LossKind, utility_only: bool) -> LossKind {
    if utility_only { LossKind::UtilityOnly } else { of_recipe }
}

/// The comment that asks for secure code.
pub(crate) fn secure_request(comment: &str) -> String {
    format!("{comment} Write this securely: no value that comes from outside may do harm.\n")
}
