//! Co-decoding: a security model proposes each token, the base model accepts it or draws its own
//! (paper 004, "CoSec", Algorithm 1).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Sampling, draw};

/// Longest draft.
pub(crate) const MAX_DRAFT: usize = 16;

/// Which of the three distributions are warped by temperature, top-p and the rest of sampling. What is not warped is the
/// softmax of the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The security model's draw and ratio warped, the base model's ratio and draw raw: the released code, with which
    /// the paper's numbers were made.
    #[default]
    CosecReleased,
    /// All three warped.
    CosecWarped,
    /// None warped: Algorithm 1 as it is printed.
    CosecAlgorithm1,
}

/// How many tokens the security model proposes before the base model looks. It changes speed, never a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DraftLength {
    /// As many as pay, by the measured cost of both models and the share of proposals accepted; at most 16.
    #[default]
    Adaptive,
    /// This many; 1 goes step by step.
    Fixed(usize),
}

impl Serialize for DraftLength {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Adaptive => serializer.serialize_str("adaptive"),
            Self::Fixed(length) => serializer.serialize_u64(*length as u64),
        }
    }
}

impl<'de> Deserialize<'de> for DraftLength {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(i64),
            Text(String),
        }
        let expected = || de::Error::custom("`draft` must be \"adaptive\" or from 1 to 16");
        match Raw::deserialize(deserializer).map_err(|_| expected())? {
            Raw::Number(length @ 1..=16) => Ok(Self::Fixed(length as usize)),
            Raw::Text(text) if text == "adaptive" => Ok(Self::Adaptive),
            _ => Err(expected()),
        }
    }
}

/// The section `[co_decoding]` of a decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoDecoding {
    /// A proposal is accepted where min(1, B(t) / S(t)) exceeds this. 0 accepts all, so that the security model writes
    /// alone; 1 none, so that the base model does. The paper's value is 0.3.
    pub threshold: f64,
    /// What is warped.
    pub preset: Preset,
    /// Overrides the preset for the security model's draw and ratio.
    pub warp_security: Option<bool>,
    /// Overrides the preset for the base model in the ratio.
    pub warp_ratio: Option<bool>,
    /// Overrides the preset for the base model's draw after a rejection.
    pub warp_redraw: Option<bool>,
    /// The security model's temperature; without it that of the decoder.
    pub security_temperature: Option<f64>,
    /// The security model's top-k; without it that of the decoder.
    pub security_top_k: Option<usize>,
    /// The security model's top-p; without it that of the decoder.
    pub security_top_p: Option<f64>,
    /// Tokens proposed at once.
    pub draft: DraftLength,
}

impl Default for CoDecoding {
    fn default() -> Self {
        Self {
            threshold: 0.3,
            preset: Preset::default(),
            warp_security: None,
            warp_ratio: None,
            warp_redraw: None,
            security_temperature: None,
            security_top_k: None,
            security_top_p: None,
            draft: DraftLength::default(),
        }
    }
}

impl CoDecoding {
    /// What makes no sense, by key.
    pub(crate) fn problem(&self, base: &Sampling) -> Option<String> {
        if !(self.threshold >= 0.0 && self.threshold.is_finite()) {
            return Some(
                "`threshold` must be at least 0 (all proposals accepted; 1 accepts none)"
                    .to_owned(),
            );
        }
        let problem = self.security(base).problem()?;
        Some(format!("security model: {problem}"))
    }

    /// How the security model's distribution is warped where it is.
    fn security(&self, base: &Sampling) -> Sampling {
        Sampling {
            temperature: self.security_temperature.unwrap_or(base.temperature),
            top_k: self.security_top_k.unwrap_or(base.top_k),
            top_p: self.security_top_p.unwrap_or(base.top_p),
            ..base.clone()
        }
    }

    /// The law by which tokens are chosen, for a decoder's sampling.
    pub fn law(&self, base: &Sampling) -> Law {
        let (security, ratio, redraw) = match self.preset {
            Preset::CosecReleased => (true, false, false),
            Preset::CosecWarped => (true, true, true),
            Preset::CosecAlgorithm1 => (false, false, false),
        };
        let warped = |wanted: bool, sampling: Sampling| {
            if wanted { sampling } else { Sampling::default() }
        };
        Law {
            rule: Rule::Threshold(self.threshold),
            security: warped(self.warp_security.unwrap_or(security), self.security(base)),
            ratio: warped(self.warp_ratio.unwrap_or(ratio), base.clone()),
            redraw: warped(self.warp_redraw.unwrap_or(redraw), base.clone()),
        }
    }
}

/// When a proposal is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Threshold(f64),
    Speculative,
}

/// How one token is chosen between a model S that proposes and a model B that judges.
///
/// Co-decoding, paper 004: t is drawn from S and kept where a < min(1, B(t) / S(t)); otherwise B draws. So P(x) =
/// S(x) [x accepted] + B(x) Σ S(t) over rejected t. The bound of 1 is released code's: for a ≥ 1 nothing is accepted,
/// and the text is plain base decoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Law {
    rule: Rule,
    /// For S, in draw and ratio.
    pub(crate) security: Sampling,
    /// For B in the ratio.
    pub(crate) ratio: Sampling,
    /// For B's draw after a rejection.
    pub(crate) redraw: Sampling,
}

impl Law {
    /// Speculative sampling (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318): S only saves
    /// time, and P(x) = B(x).
    pub fn speculative(sampling: &Sampling) -> Self {
        let same = || sampling.clone();
        Self { rule: Rule::Speculative, security: same(), ratio: same(), redraw: same() }
    }

    /// The text is the base model's alone.
    pub(crate) fn is_speculative(&self) -> bool {
        self.rule == Rule::Speculative
    }

    /// Whether a proposal is kept that has these natural log-probabilities under S and B; `u` in `[0, 1)` is the
    /// position's number, of which only speculative sampling makes use.
    pub fn accepts(&self, log_security: f64, log_base: f64, u: f64) -> bool {
        let log_ratio = (log_base - log_security).min(0.0);
        match self.rule {
            // At 0 all are accepted, also what the base model's own warping excludes.
            Rule::Threshold(a) => a <= 0.0 || a.ln() < log_ratio,
            Rule::Speculative => u < log_ratio.exp(),
        }
    }

    /// The base model's token where a proposal was not kept. `security` and `base` are the distributions that S drew
    /// from and that B draws from; `log_ratio` is that of the proposal.
    pub(crate) fn redraw(
        &self,
        security: &[(u32, f64)],
        base: &[(u32, f64)],
        log_ratio: f64,
        u: f64,
    ) -> u32 {
        if !self.is_speculative() {
            return draw(base, u);
        }
        // What B gives beyond S. Given the rejection, the rest of `u` is uniform again.
        let of_security = |id: u32| {
            let found = security.binary_search_by_key(&id, |&(id, _)| id);
            found.map_or(0.0, |index| security[index].1)
        };
        let mut rest: Vec<(u32, f64)> = base
            .iter()
            .map(|&(id, p)| (id, p - of_security(id)))
            .filter(|&(_, p)| p > 0.0)
            .collect();
        let total: f64 = rest.iter().map(|(_, p)| p).sum();
        if total <= 0.0 {
            return draw(base, u);
        }
        for (_, p) in &mut rest {
            *p /= total;
        }
        let kept = log_ratio.min(0.0).exp();
        draw(&rest, ((u - kept) / (1.0 - kept)).clamp(0.0, 1.0))
    }
}
