//! Which protections this machine offers, found out once by trying them.

use std::sync::OnceLock;

use crate::{Limits, Result, SandboxError, files, launch, seccomp::Extra};

/// Under which rights a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// The user's own; nothing could be given up.
    User,
    /// Inside a user namespace: the user's own on files, none over the system.
    UserNamespace,
    /// Root started us: every capability is dropped, and the user id changed where the program stays readable.
    Root,
}

/// A combination of protections, beside resource limits and system call filters, which are always on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    /// The Landlock version, or 0.
    pub(crate) landlock: i32,
    /// Own process, network, IPC and mount namespaces; every mount but the program's folder is read-only.
    pub(crate) namespaces: bool,
    /// Under which rights programs run.
    pub(crate) rights: Rights,
}

/// First Landlock version that keeps signals inside.
const LANDLOCK_SIGNALS: i32 = 6;
/// First Landlock version that governs `truncate`.
const LANDLOCK_TRUNCATE: i32 = 3;

impl Mode {
    /// The strongest mode that works here; the same for the life of the process.
    pub(crate) fn best() -> Result<Self> {
        static BEST: OnceLock<Result<Mode, String>> = OnceLock::new();
        BEST.get_or_init(|| {
            let landlock = files::landlock_version();
            // SAFETY: asks for a number.
            let root = unsafe { libc::geteuid() } == 0;
            let mode = |namespaces, rights| Mode { landlock, namespaces, rights };
            let candidates = if root {
                vec![
                    mode(true, Rights::Root),
                    mode(true, Rights::UserNamespace),
                    mode(false, Rights::Root),
                ]
            } else {
                vec![mode(true, Rights::UserNamespace), mode(false, Rights::User)]
            };
            let mut why = String::new();
            for candidate in candidates {
                match launch::probe(candidate) {
                    Ok(()) => return Ok(candidate),
                    Err(error) => why = error.to_string(),
                }
            }
            Err(why)
        })
        .clone()
        .map_err(|why| SandboxError::Layer { layer: "every combination of layers".to_owned(), why })
    }

    /// Fails where the mode lacks what the caller insists on.
    pub(crate) fn check(self, limits: &Limits) -> Result<()> {
        if self.landlock == 0 && !limits.allow_weaker {
            return Err(SandboxError::Layer {
                layer: "landlock".to_owned(),
                why: "the kernel does not offer it".to_owned(),
            });
        }
        Ok(())
    }

    /// What the system call filter must refuse because no other layer does; `own_uid` says that the program has a
    /// user id of its own.
    pub(crate) fn extra(self, own_uid: bool) -> Extra {
        Extra {
            refuse_attributes: !self.namespaces && !own_uid,
            refuse_signals: !self.namespaces && !own_uid && self.landlock < LANDLOCK_SIGNALS,
            refuse_truncate: !self.namespaces && !own_uid && self.landlock < LANDLOCK_TRUNCATE,
        }
    }

    /// The active layers by name, joined by `+`.
    pub(crate) fn tier(self, own_uid: bool) -> String {
        let mut layers = Vec::new();
        if self.landlock > 0 {
            layers.push(format!("landlock{}", self.landlock));
        }
        layers.extend(["seccomp", "rlimits"].map(str::to_owned));
        if self.namespaces {
            layers.extend(["pidns", "netns", "ipcns", "readonly-mounts"].map(str::to_owned));
        }
        if self.rights != Rights::User {
            layers.push("no-capabilities".to_owned());
        }
        if own_uid {
            layers.push("own-uid".to_owned());
        }
        layers.join("+")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tier_names_what_is_on() {
        let mode = Mode { landlock: 7, namespaces: true, rights: Rights::Root };
        let tier = mode.tier(true);
        assert_eq!(
            tier,
            "landlock7+seccomp+rlimits+pidns+netns+ipcns+readonly-mounts+no-capabilities+own-uid"
        );
        let bare = Mode { landlock: 0, namespaces: false, rights: Rights::User };
        assert_eq!(bare.tier(false), "seccomp+rlimits");
        assert!(bare.extra(false).refuse_signals);
    }

    #[test]
    fn no_landlock_is_an_error_unless_accepted() {
        let bare = Mode { landlock: 0, namespaces: true, rights: Rights::UserNamespace };
        let message = bare.check(&Limits::default()).unwrap_err().to_string();
        assert!(message.contains("allow_weaker"), "{message}");
        bare.check(&Limits { allow_weaker: true, ..Limits::default() }).unwrap();
    }
}
