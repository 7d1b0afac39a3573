//! Where the hub is, where its cache is, and who asks.

use std::{
    env, fmt, fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// A secret; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// `None` for what is empty once trimmed.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How the hub is asked.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The hub's address, without a `/` at its end.
    pub endpoint: String,
    /// The folder that holds `models--owner--name`.
    pub cache: PathBuf,
    /// Sent to the endpoint, and nowhere a redirect leads.
    pub token: Option<Token>,
    /// Never ask; use what is cached.
    pub offline: bool,
    /// Use the snapshot fetched last where the hub cannot be reached.
    pub stale_if_unreachable: bool,
    /// How often something that failed is tried again while no byte arrives.
    pub retries: u32,
    /// The wait before the first of them; it doubles from one to the next, up to half a minute.
    pub retry_wait: Duration,
    /// The longest wait for a connection, or for the next bytes.
    pub timeout: Duration,
    /// Set from elsewhere to stop.
    pub stop: Arc<AtomicBool>,
}

impl HubOptions {
    /// What the environment says, read as `huggingface_hub` reads it: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`,
    /// `XDG_CACHE_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN` and `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        Self::from_variables(&|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let home = variable("HF_HOME").map_or_else(
            || {
                variable("XDG_CACHE_HOME")
                    .map(PathBuf::from)
                    .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")))
                    .unwrap_or_else(env::temp_dir)
                    .join("huggingface")
            },
            PathBuf::from,
        );
        let is_set = |name: &str| {
            variable(name).is_some_and(|value| {
                ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
            })
        };
        let stored = || {
            if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                return None;
            }
            let path = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
            Token::new(&fs::read_to_string(path).ok()?)
        };
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: variable("HF_HUB_CACHE")
                .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
                .map_or_else(|| home.join("hub"), PathBuf::from),
            token: variable("HF_TOKEN")
                .or_else(|| variable("HUGGING_FACE_HUB_TOKEN"))
                .and_then(|token| Token::new(&token))
                .or_else(stored),
            offline: is_set("HF_HUB_OFFLINE"),
            stale_if_unreachable: true,
            retries: 5,
            retry_wait: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
            stop: Arc::default(),
        }
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> HubOptions {
        HubOptions::from_variables(&|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_decides() {
        let plain = from(&[("HOME", "/home/u")]);
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert_eq!(plain.cache, PathBuf::from("/home/u/.cache/huggingface/hub"));
        assert!(!plain.offline && plain.token.is_none());
        let set = from(&[
            ("HF_ENDPOINT", "http://mirror/hf/"),
            ("HF_HOME", "/data/hf"),
            ("HF_HUB_OFFLINE", "True"),
            ("HF_TOKEN", " secret\n"),
        ]);
        assert_eq!(set.endpoint, "http://mirror/hf");
        assert_eq!(set.cache, PathBuf::from("/data/hf/hub"));
        assert!(set.offline && set.token == Token::new("secret"));
        assert!(!format!("{set:?}").contains("secret"));
        assert_eq!(from(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]).cache, PathBuf::from("/c"));
        assert!(!from(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn a_stored_token_is_used_unless_forbidden() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "stored\n").unwrap();
        let at = home.path().to_str().unwrap();
        assert_eq!(from(&[("HF_HOME", at)]).token, Token::new("stored"));
        let forbidden = [("HF_HOME", at), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        assert_eq!(from(&forbidden).token, None);
    }
}
