//! How rotary frequencies are stretched to longer contexts.

use super::keys::Keys;
use crate::Result;

/// A published `rope_type` with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Positions are divided by the factor.
    Linear {
        /// The factor, at least 1.
        factor: f64,
    },
    /// The base grows with the length of a text that is longer than the context; shorter ones are not stretched.
    #[expect(missing_docs, reason = "published names")]
    Dynamic { factor: f64, max_position_embeddings: usize },
    /// Long wavelengths are divided by the factor, short ones kept, those between interpolated (Llama 3.1).
    #[expect(missing_docs, reason = "published names")]
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position_embeddings: usize,
    },
    /// Frequencies are interpolated by how often they turn within the original context; cosines and sines are
    /// scaled (Peng et al. 2023, arXiv:2309.00071, sections 3.2 and 3.4).
    #[expect(missing_docs, reason = "published names")]
    Yarn {
        factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        /// Bounds of the ramp are rounded outwards.
        truncate: bool,
        /// What cosines and sines are multiplied by.
        attention_factor: f64,
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// Reads the parameters of a `rope_type`; `context` is `max_position_embeddings`, `original` that before stretching.
    pub(super) fn read(
        kind: &str,
        keys: &Keys,
        context: usize,
        original: usize,
    ) -> Result<Option<Self>> {
        let number = |name: &str| keys.number(name)?.ok_or_else(|| keys.error(name, "is missing"));
        Ok(match kind {
            "default" => None,
            "dynamic" => Some(Self::Dynamic {
                factor: keys.positive("factor", number("factor")?)?,
                max_position_embeddings: context,
            }),
            "linear" => Some(Self::Linear { factor: keys.positive("factor", number("factor")?)? }),
            "llama3" => Some(Self::Llama3 {
                factor: keys.positive("factor", number("factor")?)?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: original,
            }),
            "yarn" => {
                let factor = keys.positive("factor", context as f64 / original as f64)?;
                let non_zero = |name: &str| -> Result<Option<f64>> {
                    Ok(keys.number(name)?.filter(|value| *value != 0.0))
                };
                let stretch = |mscale: f64| {
                    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
                };
                let attention_factor = match (
                    keys.number("attention_factor")?,
                    non_zero("mscale")?,
                    non_zero("mscale_all_dim")?,
                ) {
                    (Some(given), ..) => given,
                    (None, Some(mscale), Some(all)) => stretch(mscale) / stretch(all),
                    _ => stretch(1.0),
                };
                Some(Self::Yarn {
                    factor,
                    beta_fast: non_zero("beta_fast")?.unwrap_or(32.0),
                    beta_slow: non_zero("beta_slow")?.unwrap_or(1.0),
                    truncate: keys.flag("truncate", true)?,
                    attention_factor,
                    original_max_position_embeddings: original,
                })
            }
            other => {
                return Err(keys.error(
                    "rope_type",
                    format!("\"{other}\" is not supported; expected default, linear, dynamic, llama3 or yarn"),
                ));
            }
        })
    }
}
