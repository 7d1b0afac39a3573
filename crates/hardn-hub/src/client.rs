//! The hub's HTTP: what a repository holds, what a file is, and its bytes.

use std::{io::Read, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::{
    Agent, Body,
    http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header},
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::{HubError, HubOptions, Result, Token, digest::Etag};

const MAX_REDIRECTS: usize = 10;

/// Lists of files of the largest repositories are a few megabytes.
const MAX_ANSWER: u64 = 64 << 20;

/// What stays as it is in a path's part.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A hub, and the connections to it.
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
    has_certificates: bool,
}

/// One revision of a repository.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) commit: String,
    pub(crate) files: Vec<String>,
}

/// A file, before it is fetched.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) file: String,
    pub(crate) etag: Etag,
    pub(crate) size: Option<u64>,
}

/// Bytes on their way.
pub(crate) struct Bytes {
    /// Where in the file they start.
    pub(crate) start: u64,
    /// The size of the whole file, where the answer says it.
    pub(crate) size: Option<u64>,
    pub(crate) reader: Box<dyn Read>,
}

/// What is asked for, as messages name it.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) repo: &'a str,
    pub(crate) revision: &'a str,
    pub(crate) file: Option<&'a str>,
}

#[derive(Deserialize)]
struct InfoAnswer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Client {
    pub(crate) fn new(options: &HubOptions) -> Self {
        let found = rustls_native_certs::load_native_certs().certs;
        let certificates: Vec<Certificate<'static>> =
            found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let has_certificates = !certificates.is_empty();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::from(certificates))
            .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
            .build();
        let connect = options.timeout.min(Duration::from_secs(15));
        let mut config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("hardn/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .timeout_recv_response(Some(options.timeout))
            .timeout_per_read(Some(options.timeout));
        if is_loopback(&options.endpoint) {
            config = config.proxy(None);
        }
        Self {
            agent: config.build().new_agent(),
            endpoint: options.endpoint.clone(),
            token: options.token.clone(),
            has_certificates,
        }
    }

    /// The commit a revision stands for, and its files.
    pub(crate) fn info(&self, asked: Asked<'_>) -> Result<Info> {
        let url = format!(
            "{}/api/models/{}/revision/{}",
            self.endpoint,
            asked.repo,
            utf8_percent_encode(asked.revision, PART)
        );
        let (url, mut response) = self.follow(&Method::GET, &url, None, &mut |_| false)?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(&url, &mut response, asked));
        }
        let text = read_all(&url, &mut response)?;
        let answer: InfoAnswer = serde_json::from_slice(&text)
            .map_err(|error| HubError::Answer { url: url.clone(), message: error.to_string() })?;
        let is_commit_like = (1..=64).contains(&answer.sha.len())
            && answer.sha.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_commit_like {
            let message = format!("`{}` is no commit", answer.sha);
            return Err(HubError::Answer { url, message });
        }
        let files = answer.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Info { commit: answer.sha, files })
    }

    /// Hash and size of a file of a commit.
    pub(crate) fn meta(&self, asked: Asked<'_>, file: &str) -> Result<Meta> {
        let asked = Asked { file: Some(file), ..asked };
        let (mut etag, mut size) = (None, None);
        let url = self.file_url(asked);
        let (url, mut response) = self.follow(&Method::HEAD, &url, None, &mut |response| {
            let headers = response.headers();
            // Large files are elsewhere; the hub's own answer, which sends there, says what they are.
            etag = etag.take().or_else(|| text(headers, "x-linked-etag"));
            size = size.or_else(|| number(headers, "x-linked-size"));
            etag.is_some()
        })?;
        if !response.status().is_success() && !response.status().is_redirection() {
            return Err(self.refusal(&url, &mut response, asked));
        }
        if !response.status().is_redirection() {
            etag = etag.or_else(|| text(response.headers(), "etag"));
            size = size.or_else(|| number(response.headers(), "content-length"));
        }
        let Some(etag) = etag.as_deref().and_then(Etag::parse) else {
            let message = format!("no usable ETag for {file}");
            return Err(HubError::Answer { url, message });
        };
        Ok(Meta { file: file.to_owned(), etag, size })
    }

    /// The bytes of a file of a commit from `from` on, or from 0 where the server knows no ranges; `None` where
    /// the file has no byte there.
    pub(crate) fn bytes(&self, asked: Asked<'_>, from: u64) -> Result<Option<Bytes>> {
        let range = (from > 0).then_some(from);
        let (url, mut response) =
            self.follow(&Method::GET, &self.file_url(asked), range, &mut |_| false)?;
        let headers = response.headers();
        let (start, size) = match response.status() {
            StatusCode::OK => (0, number(headers, "content-length")),
            StatusCode::PARTIAL_CONTENT => {
                let said = text(headers, "content-range").unwrap_or_default();
                parse_content_range(&said)
                    .filter(|(start, _)| [0, from].contains(start))
                    .ok_or_else(|| HubError::Answer {
                        url: url.clone(),
                        message: format!("`{said}` for the bytes from {from} on"),
                    })?
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(None),
            _ => return Err(self.refusal(&url, &mut response, asked)),
        };
        let reader = Box::new(response.into_body().into_reader());
        Ok(Some(Bytes { start, size, reader }))
    }

    fn file_url(&self, asked: Asked<'_>) -> String {
        let file = asked.file.unwrap_or_default();
        let parts: Vec<String> =
            file.split('/').map(|part| utf8_percent_encode(part, PART).to_string()).collect();
        let revision = utf8_percent_encode(asked.revision, PART);
        format!("{}/{}/resolve/{revision}/{}", self.endpoint, asked.repo, parts.join("/"))
    }

    /// Sends a request and follows redirects until `enough` says so or there is none. The token goes to the
    /// endpoint only: a redirect to another origin must not learn it.
    fn follow(
        &self,
        method: &Method,
        url: &str,
        start: Option<u64>,
        enough: &mut dyn FnMut(&Response<Body>) -> bool,
    ) -> Result<(String, Response<Body>)> {
        let mut at = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::builder()
                .method(method)
                .uri(&at)
                .header(header::ACCEPT_ENCODING, "identity");
            if let Some(token) = &self.token
                && origin(&at).is_some_and(|at| Some(at) == origin(&self.endpoint))
            {
                let value = format!("Bearer {}", token.as_str());
                request = request.header(header::AUTHORIZATION, value);
            }
            if let Some(start) = start {
                request = request.header(header::RANGE, format!("bytes={start}-"));
            }
            let request = request.body(()).map_err(|error| HubError::Unreachable {
                url: at.clone(),
                message: format!("the request cannot be made: {error}"),
                may_pass: false,
            })?;
            let response = self.agent.run(request).map_err(|error| self.unreachable(&at, error))?;
            let location = text(response.headers(), "location");
            let (true, Some(location)) = (response.status().is_redirection(), location) else {
                enough(&response);
                return Ok((at, response));
            };
            if enough(&response) {
                return Ok((at, response));
            }
            at = join(&at, &location).ok_or_else(|| HubError::Answer {
                url: at.clone(),
                message: format!("a redirect to `{location}`"),
            })?;
        }
        let message = format!("more than {MAX_REDIRECTS} redirects");
        Err(HubError::Answer { url: url.to_owned(), message })
    }

    fn unreachable(&self, url: &str, error: ureq::Error) -> HubError {
        use std::io::ErrorKind as Kind;
        // A name that does not resolve, a refused connection and a bad certificate stay as they are.
        let may_pass = match &error {
            ureq::Error::Io(error) => matches!(
                error.kind(),
                Kind::TimedOut
                    | Kind::ConnectionReset
                    | Kind::ConnectionAborted
                    | Kind::BrokenPipe
                    | Kind::UnexpectedEof
            ),
            ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => true,
            _ => false,
        };
        let mut message = match error {
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        if message.contains("certificate") {
            message += "; SSL_CERT_FILE may name the certificates to trust";
        }
        if !self.has_certificates && url.starts_with("https:") {
            message +=
                "; no root certificates were found: install ca-certificates or set SSL_CERT_FILE";
        }
        HubError::Unreachable { url: url.to_owned(), message, may_pass }
    }

    /// What a status that is no success means.
    fn refusal(&self, url: &str, response: &mut Response<Body>, asked: Asked<'_>) -> HubError {
        let status = response.status().as_u16();
        let code = text(response.headers(), "x-error-code").unwrap_or_default();
        let message = text(response.headers(), "x-error-message")
            .or_else(|| {
                let body = read_all(url, response).ok()?;
                let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
                Some(body["error"].as_str()?.chars().take(300).collect())
            })
            .unwrap_or_default();
        let (endpoint, repo) = (self.endpoint.clone(), asked.repo.to_owned());
        let revision = asked.revision.to_owned();
        let no_file = |file: &str| HubError::NoFile {
            repo: asked.repo.to_owned(),
            revision: asked.revision.to_owned(),
            file: file.to_owned(),
            others: Vec::new(),
        };
        match (status, code.as_str(), asked.file) {
            (401 | 403 | 404, "RepoNotFound", _) => HubError::NoRepository { endpoint, repo },
            (404, "RevisionNotFound", _) => HubError::NoRevision { endpoint, repo, revision },
            (404, _, Some(file)) => no_file(file),
            (404, _, None) if asked.revision != crate::source::DEFAULT_REVISION => {
                let url = format!("{}/api/models/{repo}", self.endpoint);
                match self.follow(&Method::GET, &url, None, &mut |_| false) {
                    Ok((_, answer)) if answer.status() == StatusCode::OK => {
                        HubError::NoRevision { endpoint, repo, revision }
                    }
                    _ => HubError::NoRepository { endpoint, repo },
                }
            }
            (404, _, None) => HubError::NoRepository { endpoint, repo },
            (401 | 403, ..) => HubError::Forbidden {
                endpoint,
                repo,
                status,
                gated: code == "GatedRepo" || message.contains("gated"),
                has_token: self.token.is_some(),
                message,
            },
            _ => HubError::Status { url: url.to_owned(), status, message },
        }
    }
}

fn read_all(url: &str, response: &mut Response<Body>) -> Result<Vec<u8>> {
    response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(|error| {
        HubError::Unreachable { url: url.to_owned(), message: error.to_string(), may_pass: true }
    })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_owned())
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

/// `bytes 5-9/10` is `(5, Some(10))`; the size may be `*`.
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, size.parse().ok()))
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    Some((uri.scheme_str()?.to_owned(), uri.authority()?.as_str().to_ascii_lowercase()))
}

/// Where a `Location` leads from a URL.
fn join(url: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let (scheme, authority) = origin(url)?;
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    location.starts_with('/').then(|| format!("{scheme}://{authority}{location}"))
}

fn is_loopback(url: &str) -> bool {
    url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).is_some_and(|host| {
        host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_and_ranges_are_read() {
        let from = "https://hub.test:8443/a/b/resolve/main/x";
        assert_eq!(join(from, "/c?d=1").unwrap(), "https://hub.test:8443/c?d=1");
        assert_eq!(join(from, "//cdn.test/c").unwrap(), "https://cdn.test/c");
        assert_eq!(join(from, "http://cdn.test/c").unwrap(), "http://cdn.test/c");
        assert_eq!(join(from, "ftp://x"), None);
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(parse_content_range("5-9/10"), None);
    }

    #[test]
    fn loopback_needs_no_proxy() {
        for url in ["http://127.0.0.1:80", "http://localhost/x", "http://[::1]:1"] {
            assert!(is_loopback(url), "{url}");
        }
        assert!(!is_loopback("https://huggingface.co"));
    }
}
