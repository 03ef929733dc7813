//! Who may ask: programs on this host, and no web page that a browser on this host shows. A page can
//! make its browser send requests here, or give its own name this address; both are told by headers
//! that a page cannot set.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::answer::Failure;

/// How requests arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transport {
    /// By a port, which everybody on this host can reach.
    Tcp,
    /// By a file, which only this user can open.
    Unix,
}

const REMEDY: &str = "use `pinmesh`, curl or another program, at the loopback address";

pub(super) async fn guard(
    State(transport): State<Transport>,
    request: Request,
    next: Next,
) -> Response {
    match objection(transport, request.headers()) {
        None => next.run(request).await,
        Some(text) => Failure::new(StatusCode::FORBIDDEN, text, REMEDY).into_response(),
    }
}

fn objection(transport: Transport, headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST);
    match (transport, host) {
        (Transport::Unix, _) => {}
        (Transport::Tcp, Some(host)) if is_loopback(host) => {}
        (Transport::Tcp, Some(host)) => {
            return Some(format!("Host {host}: is no loopback address"));
        }
        (Transport::Tcp, None) => return Some("a request without Host".to_owned()),
    }
    if let Some(origin) = text(header::ORIGIN) {
        let own = host.map(|host| format!("http://{host}"));
        if own.as_deref() != Some(origin) {
            return Some(format!("Origin {origin}: pages of other origins may not ask"));
        }
    }
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    match site {
        None | Some(b"none" | b"same-origin") => None,
        Some(_) => Some("Sec-Fetch-Site: pages of other origins may not ask".to_owned()),
    }
}

/// `127.0.0.1:5557`, `localhost`, `[::1]:80`, ...
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(transport: Transport, headers: &[(&'static str, &str)]) -> Option<String> {
        let pairs = headers.iter().map(|(name, value)| {
            (axum::http::HeaderName::from_static(name), value.parse().expect("a header"))
        });
        objection(transport, &pairs.collect())
    }

    #[test]
    fn programs_may_ask_by_any_loopback_name() {
        for host in ["127.0.0.1:5557", "localhost:6000", "LOCALHOST", "[::1]:5557", "127.8.0.1"] {
            assert_eq!(told(Transport::Tcp, &[("host", host)]), None, "{host}");
        }
        assert_eq!(told(Transport::Unix, &[]), None);
        assert_eq!(told(Transport::Unix, &[("host", "pinmesh")]), None);
    }

    #[test]
    fn a_name_that_was_given_this_address_may_not() {
        for host in ["evil.example:5557", "10.0.0.1", "localhost.evil.example", "", "[::2]:1"] {
            assert!(told(Transport::Tcp, &[("host", host)]).is_some(), "{host}");
        }
        assert!(told(Transport::Tcp, &[]).is_some());
    }

    #[test]
    fn pages_of_other_origins_may_not_and_our_own_may() {
        let host = ("host", "127.0.0.1:5557");
        for other in
            ["http://evil.example", "null", "http://127.0.0.1:80", "https://127.0.0.1:5557"]
        {
            let found = told(Transport::Tcp, &[host, ("origin", other)]);
            assert!(found.is_some_and(|text| text.contains(other)), "{other}");
        }
        assert_eq!(told(Transport::Tcp, &[host, ("origin", "http://127.0.0.1:5557")]), None);
        for (site, may) in [("cross-site", false), ("same-site", false), ("none", true)] {
            let found = told(Transport::Tcp, &[host, ("sec-fetch-site", site)]);
            assert_eq!(found.is_none(), may, "{site}");
        }
    }
}
