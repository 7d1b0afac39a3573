//! Landlock: which files a program may see and change.

use std::{
    ffi::OsStr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};

use crate::{Result, SandboxError};

/// Folders of programs and libraries, readable where they exist.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Settings that libraries read; nothing of `/etc` beside them is visible.
const SETTINGS: &[&str] = &[
    "/etc/alternatives",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
];

/// Devices without memory of their own.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// What may be seen beyond the system's programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visible<'a> {
    /// Readable and executable.
    pub(crate) read: &'a [PathBuf],
    /// Readable, executable and writable.
    pub(crate) write: &'a Path,
}

/// The Landlock version of the running kernel; 0 where there is none.
pub(crate) fn landlock_version() -> i32 {
    /// Asks for the version instead of making a rule set.
    const VERSION: libc::c_uint = 1;
    // SAFETY: a null attribute of size 0 with the version flag only asks a question.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION)
    };
    i32::try_from(version).unwrap_or(0).max(0)
}

/// Builds the rule set. The program's own `/proc` entry is added to it after the program's process exists.
pub(crate) fn ruleset(version: i32, visible: Visible<'_>) -> Result<OwnedFd> {
    let failed = |error: landlock::RulesetError| SandboxError::Layer {
        layer: "landlock".to_owned(),
        why: error.to_string(),
    };
    let abi = ABI::from(version);
    let mut attributes = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))
        .map_err(failed)?;
    if abi >= ABI::V4 {
        attributes = attributes.handle_access(AccessNet::from_all(abi)).map_err(failed)?;
    }
    if abi >= ABI::V6 {
        attributes = attributes.scope(Scope::from_all(abi)).map_err(failed)?;
    }
    let mut rules = attributes.create().map_err(failed)?;
    let read = AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir;
    for path in SYSTEM.iter().chain(SETTINGS) {
        rules = allow(rules, path.as_ref(), read, abi)?;
    }
    for path in DEVICES {
        rules = allow(rules, path.as_ref(), AccessFs::ReadFile | AccessFs::WriteFile, abi)?;
    }
    for path in visible.read {
        rules = allow(rules, path.as_os_str(), read, abi)?;
    }
    // Everything but making devices and sockets.
    let write = AccessFs::from_all(abi)
        & !(AccessFs::MakeBlock | AccessFs::MakeChar | AccessFs::MakeSock | AccessFs::IoctlDev);
    rules = allow(rules, visible.write.as_os_str(), write, abi)?;
    Option::<OwnedFd>::from(rules).ok_or_else(|| SandboxError::Layer {
        layer: "landlock".to_owned(),
        why: "the kernel made no rule set".to_owned(),
    })
}

/// Allows `access` below `path`; a path that does not exist stays invisible.
fn allow(
    rules: RulesetCreated,
    path: &OsStr,
    access: BitFlags<AccessFs>,
    abi: ABI,
) -> Result<RulesetCreated> {
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(rules) };
    let access = if metadata.is_dir() { access } else { access & AccessFs::from_file(abi) };
    let failed = |why: String| SandboxError::Layer {
        layer: format!("landlock rule for {}", path.display()),
        why,
    };
    let fd = PathFd::new(path).map_err(|error| failed(error.to_string()))?;
    rules.add_rule(PathBeneath::new(fd, access)).map_err(|error| failed(error.to_string()))
}
