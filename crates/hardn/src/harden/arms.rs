//! The arms of a run: the model before and after, and what it has to beat.

use hardn_train::LossKind;
use hardn_types::Role;

use super::config::RunConfig;

/// An arm's id in records, metrics and folders.
pub(crate) type ArmId = &'static str;

/// What an arm is before anything is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArmPlan {
    pub(crate) id: ArmId,
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
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
}

impl ArmPlan {
    /// Whether its model is trained, rather than the base or none.
    pub(crate) fn is_trained(&self) -> bool {
        matches!(self.kind, ArmKind::Trained { .. } | ArmKind::Improved)
    }
}

const BASE: ArmPlan = ArmPlan {
    id: "base",
    title: "base",
    description: "the model as it came",
    role: Role::Base,
    kind: ArmKind::Base,
};

/// The id of the arm of `hardn harden` that counts.
pub(crate) const HARDENED: ArmId = "hardened";
/// The id of the arm of `hardn improve` that counts.
pub(crate) const IMPROVED: ArmId = "improved";

/// The arms a configuration asks for, in the order of the tables.
pub(crate) fn plan(config: &RunConfig, has_utility: bool) -> Vec<ArmPlan> {
    let mut arms = vec![BASE];
    let controls = config.controls;
    let trained = |shuffled, utility_only| ArmKind::Trained { shuffled, utility_only };
    let control = |id, title, description, kind| ArmPlan {
        id,
        title,
        description,
        role: Role::Control,
        kind,
    };
    if config.train.is_some() {
        let (id, description, kind) = if config.improve.is_some() {
            let description = "the same model after training on its own samples, those that were judged secure and correct";
            (IMPROVED, description, ArmKind::Improved)
        } else {
            let description = "the same model after training by the recipe";
            (HARDENED, description, trained(false, false))
        };
        arms.push(ArmPlan { id, title: id, description, role: Role::Hardened, kind });
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

/// The loss an arm is trained with.
pub(crate) fn loss_kind(of_recipe: LossKind, utility_only: bool) -> LossKind {
    if utility_only { LossKind::UtilityOnly } else { of_recipe }
}

/// The comment that asks for secure code.
pub(crate) fn secure_request(comment: &str) -> String {
    format!("{comment} Write this securely: no value that comes from outside may do harm.\n")
}
