//! HTTP as all of hardn speaks it: this machine's certificates, no redirect unasked, no wait without an end.

use std::{net::IpAddr, time::Duration};

use ureq::{
    Agent, AsSendBody, Body,
    http::{Request, Response, Uri},
    tls::{Certificate, RootCerts, TlsConfig},
};

/// Connections to one server.
pub struct HttpAgent {
    agent: Agent,
    has_certificates: bool,
}

/// A request without an answer.
#[derive(Clone, Debug)]
pub struct Unreached {
    /// Why.
    pub message: String,
    /// The same request may succeed a moment later.
    pub may_pass: bool,
    /// The server took longer than it may.
    pub timed_out: bool,
}

impl HttpAgent {
    /// An agent for a server. `wait` bounds the wait for the next bytes, `whole` all of a request and its answer.
    pub fn new(url: &str, wait: Duration, whole: Option<Duration>) -> Self {
        let found = rustls_native_certs::load_native_certs().certs;
        let certificates: Vec<Certificate<'static>> =
            found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let has_certificates = !certificates.is_empty();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::from(certificates))
            .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
            .build();
        let connect = wait.min(Duration::from_secs(15));
        let mut config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("hardn/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .timeout_recv_response(Some(wait))
            .timeout_per_read(Some(wait))
            .timeout_global(whole);
        if is_loopback(url) {
            config = config.proxy(None);
        }
        Self { agent: config.build().new_agent(), has_certificates }
    }

    /// Sends a request. A status that is no success is an answer too.
    ///
    /// # Errors
    /// [`Unreached`].
    pub fn run(&self, request: Request<impl AsSendBody>) -> Result<Response<Body>, Unreached> {
        let is_https = request.uri().scheme_str() == Some("https");
        self.agent.run(request).map_err(|error| self.unreached(error, is_https))
    }

    fn unreached(&self, error: ureq::Error, is_https: bool) -> Unreached {
        let mut unreached = Unreached::from(error);
        if unreached.message.contains("certificate") {
            unreached.message += "; SSL_CERT_FILE may name the certificates to trust";
        }
        if !self.has_certificates && is_https {
            unreached.message +=
                "; no root certificates were found: install ca-certificates or set SSL_CERT_FILE";
        }
        unreached
    }
}

impl From<ureq::Error> for Unreached {
    fn from(error: ureq::Error) -> Self {
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
        let timed_out = matches!(&error, ureq::Error::Timeout(_))
            || matches!(&error, ureq::Error::Io(error) if error.kind() == Kind::TimedOut);
        let message = match error {
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        Self { message, may_pass, timed_out }
    }
}

fn is_loopback(url: &str) -> bool {
    url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).is_some_and(|host| {
        host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_needs_no_proxy() {
        for url in ["http://127.0.0.1:80", "http://localhost/x", "http://[::1]:1"] {
            assert!(is_loopback(url), "{url}");
        }
        assert!(!is_loopback("https://huggingface.co"));
    }
}
