//! What a recipe minimises.

use serde::{Deserialize, Serialize};

use crate::{ExampleKind, KlDirection, Term};

/// Factors on the losses of one sample, by its kind. Plain numbers: the released trainers divide theirs, SVEN by 100
/// (contrastive) and by 1000 (divergence), SafeCoder by 1000 (divergence).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossWeights {
    /// Likelihood of utility samples; with 0 they do not take part.
    pub utility: f64,
    /// Likelihood of the selected tokens of secure samples; with `sven`, of either side under its own prefix.
    /// SafeCoder's released trainer has one `loss_weight` (1) for this and `unlikelihood`.
    pub secure: f64,
    /// Unlikelihood of the selected tokens of vulnerable samples; with 0 these do not take part.
    pub unlikelihood: f64,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self { utility: 1.0, secure: 1.0, unlikelihood: 1.0 }
    }
}

/// What the losses add up to. `docs/training.md` has the formulas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Likelihood of secure samples, unlikelihood of vulnerable ones, likelihood of utility samples (paper 002,
    /// equations 3 and 4), and with a `kl_weight` the divergence of both sides (released code).
    #[default]
    Safecoder,
    /// Likelihood of secure and utility samples; vulnerable ones are not used. With mask `whole` this is
    /// plain fine-tuning on fixed code, with another mask HexaCoder's masked one (paper 003).
    Nll,
    /// As `nll`, and a divergence from the untrained model at unselected tokens (CoSec's security model, paper 004,
    /// equations 1 to 3).
    MaskedKl,
    /// Two adapters, one for each side: the likelihood of a side under its own, a contrast of its own with the other,
    /// and the divergence of both (He and Vechev 2023, arXiv:2302.05319, section 4).
    Sven,
    /// Likelihood of secure samples, unlikelihood of vulnerable ones, the divergence of both (paper 002, appendix A,
    /// equation 6).
    SvenAdapted,
    /// Both sides of a pair in one logistic loss of how much likelier the secure one has become than the vulnerable
    /// one since training began (Rafailov et al. 2023, arXiv:2305.18290, equation 7), over the selected tokens.
    Dpo,
    /// The same without a reference: how much likelier the secure side is than the vulnerable one, a token, beyond a
    /// margin (Meng et al. 2024, arXiv:2405.14734, equation 6), over the selected tokens.
    Simpo,
    /// Utility samples alone: what a method must beat.
    UtilityOnly,
}

impl LossKind {
    /// Its loss takes both sides of a pair together, so that neither is of use without the other.
    pub fn is_pairwise(self) -> bool {
        matches!(self, Self::Dpo | Self::Simpo)
    }

    /// Every side has an adapter of its own.
    pub fn has_two_adapters(self) -> bool {
        self == Self::Sven
    }

    /// The name of its own term in reports, for kinds that are pairwise.
    pub(crate) fn pair_term(self) -> &'static str {
        if self == Self::Dpo { "dpo" } else { "simpo" }
    }
}

/// How the selected tokens of a sample are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their mean (released code).
    #[default]
    Mean,
    /// Their sum (papers 002 to 004).
    Sum,
    /// The mean over the selected tokens of all samples of a micro-batch together, so that long samples weigh more
    /// (released code of HexaCoder and of papers 000 and 001). Divergences: over the unselected ones.
    Tokens,
}

/// How the log-probabilities of a side's selected tokens make that side's score in a pairwise loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogProbs {
    /// As the paper of the loss kind has it: the sum for `dpo`, the mean for `simpo`.
    #[default]
    Paper,
    /// Their sum.
    Sum,
    /// Their mean: sides of different length weigh alike.
    Mean,
}

/// Whether the two sides of a pair meet in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// Each side is a sample of its own (released code).
    #[default]
    Independent,
    /// Both sides make one sample, whose losses are added (paper 002, Algorithm 1).
    Joint,
}

/// What becomes of a pair of which one side has no selected token, such as a fix that only adds code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OneSided {
    /// The other side is a sample for itself, as far as the loss has a use for it: a pairwise one for a secure side's
    /// likelihood, where `nll_weight` is above 0.
    #[default]
    Alone,
    /// The side's tokens are those at which it parts from what the other one selected, one for each changed place:
    /// what a model writes there leaves the addition out. Where the text ends there, its end is that token. Ours.
    NextToken,
    /// Neither side takes part, where the loss uses both.
    Drop,
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossRecipe {
    /// What the losses add up to.
    pub kind: LossKind,
    /// Factors on them.
    pub weights: LossWeights,
    /// Factor on the divergence from the untrained model at unselected tokens; 0 switches it off. Plain: SVEN's
    /// released 1600 is 1.6 here.
    pub kl_weight: f64,
    /// Which way that divergence points.
    pub kl_direction: KlDirection,
    /// Factor on `sven`'s contrast of the two adapters. Plain: SVEN's released 400 is 4 here.
    pub contrastive_weight: f64,
    /// How steep a pairwise loss is; 0: 0.1 for `dpo`, 2 for `simpo`, as in their papers.
    pub beta: f64,
    /// By how much, after multiplication by `beta`, a secure side's score should exceed the vulnerable one's.
    pub gamma: f64,
    /// How a side's score in a pairwise loss is made.
    pub log_probs: LogProbs,
    /// Factor on the likelihood of the secure side beside a pairwise loss (Pang et al. 2024, arXiv:2404.19733,
    /// equation 1), reduced as `reduction` says.
    pub nll_weight: f64,
    /// What becomes of a pair of which one side has no selected token.
    pub one_sided: OneSided,
    /// How a sample's tokens are added up.
    pub reduction: Reduction,
    /// Whether the two sides of a pair meet in one step; in a pairwise loss they always do.
    pub pairing: Pairing,
}

impl Default for LossRecipe {
    fn default() -> Self {
        Self {
            kind: LossKind::default(),
            weights: LossWeights::default(),
            kl_weight: 0.0,
            kl_direction: KlDirection::default(),
            contrastive_weight: 4.0,
            beta: 0.0,
            gamma: 0.0,
            log_probs: LogProbs::default(),
            nll_weight: 0.0,
            one_sided: OneSided::default(),
            reduction: Reduction::default(),
            pairing: Pairing::default(),
        }
    }
}

impl LossRecipe {
    /// The same with every choice made: what the kind does not use weighs nothing, and what it leaves to its paper is
    /// filled in.
    #[must_use]
    pub(crate) fn resolved(&self) -> Self {
        let mut loss = *self;
        match self.kind {
            LossKind::Safecoder | LossKind::SvenAdapted => {}
            LossKind::Nll => {
                loss.weights.unlikelihood = 0.0;
                loss.kl_weight = 0.0;
            }
            LossKind::MaskedKl | LossKind::Sven => loss.weights.unlikelihood = 0.0,
            LossKind::Dpo | LossKind::Simpo => {
                loss.weights.secure = self.nll_weight;
                loss.weights.unlikelihood = 0.0;
                loss.pairing = Pairing::Joint;
            }
            LossKind::UtilityOnly => {
                loss.weights.secure = 0.0;
                loss.weights.unlikelihood = 0.0;
                loss.kl_weight = 0.0;
                // A control of a method that takes no utility samples has to take them all the same.
                if loss.weights.utility == 0.0 {
                    loss.weights.utility = 1.0;
                }
            }
        }
        if !self.kind.has_two_adapters() {
            loss.contrastive_weight = 0.0;
        }
        let is_dpo = self.kind == LossKind::Dpo;
        if self.beta == 0.0 {
            loss.beta = if is_dpo { 0.1 } else { 2.0 };
        }
        if self.log_probs == LogProbs::Paper {
            loss.log_probs = if is_dpo { LogProbs::Sum } else { LogProbs::Mean };
        }
        loss
    }

    /// Samples of that kind take part, where the loss is resolved.
    pub(crate) fn uses(&self, kind: ExampleKind) -> bool {
        let both = self.kind.is_pairwise() || self.kind == LossKind::Sven;
        match kind {
            ExampleKind::Utility => self.weights.utility != 0.0,
            ExampleKind::Secure => self.kind != LossKind::UtilityOnly,
            ExampleKind::Vulnerable => {
                let diverges = self.kind == LossKind::SvenAdapted && self.kl_weight != 0.0;
                both || diverges || self.weights.unlikelihood != 0.0
            }
        }
    }

    /// A side without the other one is of no use, where the loss is resolved.
    pub(crate) fn wastes_alone(&self, kind: ExampleKind) -> bool {
        let takes_both = self.one_sided == OneSided::Drop && self.uses(ExampleKind::Vulnerable);
        let is_secure = kind == ExampleKind::Secure && self.weights.secure != 0.0;
        takes_both || (self.kind.is_pairwise() && !is_secure)
    }

    /// A side is of use without a selected token, where the loss is resolved: it has a divergence.
    pub(crate) fn keeps_unselected(&self) -> bool {
        self.kl_weight != 0.0 && !self.kind.is_pairwise() && self.one_sided != OneSided::Drop
    }

    /// Samples of that kind have a divergence at their unselected tokens, where the loss is resolved.
    pub(crate) fn diverges(&self, kind: ExampleKind) -> bool {
        self.kl_weight != 0.0 && kind != ExampleKind::Utility && self.uses(kind)
    }

    /// Samples of that kind change the loss, where it is resolved.
    pub(crate) fn weighs(&self, kind: ExampleKind) -> bool {
        let is_side = kind != ExampleKind::Utility;
        let is_coupled = self.kind.is_pairwise() || self.contrastive_weight != 0.0;
        self.token_term(kind).1 != 0.0 || self.diverges(kind) || (is_side && is_coupled)
    }

    /// A side's loss takes more than one forward pass, which a utility sample's does not, where the loss is resolved.
    pub(crate) fn has_passes_of_sides(&self) -> bool {
        self.kl_weight != 0.0 || self.kind.has_two_adapters() || self.kind == LossKind::Dpo
    }

    /// What a selected token of a sample is charged with on its own, and the factor, where the loss is resolved.
    pub(crate) fn token_term(&self, kind: ExampleKind) -> (Term, f64) {
        match kind {
            ExampleKind::Utility => (Term::Nll, self.weights.utility),
            ExampleKind::Secure => (Term::Nll, self.weights.secure),
            ExampleKind::Vulnerable if self.kind == LossKind::Sven => {
                (Term::Nll, self.weights.secure)
            }
            ExampleKind::Vulnerable if self.kind.is_pairwise() => (Term::Nll, 0.0),
            ExampleKind::Vulnerable => (Term::Unlikelihood, self.weights.unlikelihood),
        }
    }

    /// Whether the numbers can be used.
    ///
    /// # Errors
    /// The first that cannot.
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, value) in [
            ("weights.utility", self.weights.utility),
            ("weights.secure", self.weights.secure),
            ("weights.unlikelihood", self.weights.unlikelihood),
            ("kl_weight", self.kl_weight),
            ("contrastive_weight", self.contrastive_weight),
            ("beta", self.beta),
            ("nll_weight", self.nll_weight),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err(format!("`loss.{name}` is {value}, but must be 0 or more"));
            }
        }
        if !self.gamma.is_finite() {
            return Err(format!("`loss.gamma` is {}, but must be a number", self.gamma));
        }
        if self.kind == LossKind::MaskedKl && self.kl_weight == 0.0 {
            return Err("loss kind `masked_kl` needs a `loss.kl_weight` above 0".to_owned());
        }
        Ok(())
    }
}
