//! Where models are computed.

use std::sync::OnceLock;

use candle_core::Device;

use crate::failure::{Failure, Outcome};

static DEVICE: OnceLock<(String, Device)> = OnceLock::new();

/// Sets the device of `--device`: `cpu`, `cuda`, or `cuda:N`.
pub(crate) fn choose(name: &str) -> Outcome {
    let device = match name.split_once(':').unwrap_or((name, "0")) {
        ("cpu", "0") => Device::Cpu,
        ("cuda", ordinal) => {
            let ordinal = ordinal.parse().map_err(|_| {
                Failure::new(format!("`--device {name}`: `{ordinal}` is not a number"))
            })?;
            if !candle_core::utils::cuda_is_available() {
                return Err(Failure::new("this hardn was built without CUDA").help(
                    "build it with `cargo build --release --features cuda`; docs/models.md says what that needs",
                ));
            }
            Device::new_cuda(ordinal)?
        }
        _ => {
            return Err(Failure::new(format!("there is no device `{name}`"))
                .help("expected cpu, cuda or cuda:N"));
        }
    };
    // The command line is read once.
    let _ = DEVICE.set((name.to_owned(), device));
    Ok(())
}

/// The device models are loaded onto.
pub(crate) fn chosen() -> &'static Device {
    DEVICE.get().map_or(&Device::Cpu, |(_, device)| device)
}

/// Its name, as `--device` takes it.
pub(crate) fn chosen_name() -> &'static str {
    DEVICE.get().map_or("cpu", |(name, _)| name)
}
