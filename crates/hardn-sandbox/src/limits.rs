//! How much a program may use.

use serde::{Deserialize, Serialize};

/// Limits of one run. Time is measured for the program and all its children together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// CPU time, in milliseconds. The limit that counts: it does not depend on how busy the machine is.
    pub cpu_ms: u64,
    /// Elapsed time, in milliseconds; for programs that sleep or wait.
    pub wall_ms: u64,
    /// Resident memory of the whole process tree, in bytes. The address space is limited to twice as much.
    pub memory_bytes: u64,
    /// Leave the address space unlimited, as AddressSanitizer needs; resident memory stays limited.
    pub address_space_unlimited: bool,
    /// Processes and threads at one time.
    pub processes: u64,
    /// Size of any one file, in bytes.
    pub file_bytes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// How much of standard output, and of standard error, is kept, in bytes.
    pub output_bytes: usize,
    /// Run even where the kernel offers no Landlock; the outcome's tier says what was missing.
    pub allow_weaker: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms: 4_000,
            wall_ms: 16_000,
            memory_bytes: 512 << 20,
            address_space_unlimited: false,
            processes: 32,
            file_bytes: 16 << 20,
            open_files: 128,
            output_bytes: 64 << 10,
            allow_weaker: false,
        }
    }
}

impl Limits {
    /// What a compiler needs.
    pub fn compiler() -> Self {
        Self {
            cpu_ms: 20_000,
            wall_ms: 80_000,
            memory_bytes: 1 << 30,
            file_bytes: 64 << 20,
            ..Self::default()
        }
    }
}
