//! Endpoints: parsed and checked before libzmq sees them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Result;
use crate::error::TransportError;

/// The longest path of a Unix socket, in bytes: `sun_path` without its closing zero.
const IPC_PATH_BYTES_MAX: usize = 107;
/// The longest host name in DNS.
const NAME_BYTES_MAX: usize = 253;

/// Where a socket binds or connects: `tcp://HOST:PORT` or `ipc:///PATH`.
///
/// HOST is an IPv4 address, an IPv6 address in brackets, a name, or `*` for every address. PORT is
/// 1 to 65535, or 0 or `*` for one that the system chooses. `localhost` always means 127.0.0.1.
///
/// ```
/// use pinmesh_transport::Endpoint;
///
/// let endpoint: Endpoint = "tcp://[::1]:5555".parse()?;
/// assert!(endpoint.is_local());
/// assert!(!"tcp://*:5555".parse::<Endpoint>()?.is_local());
/// assert!("tcp://127.0.0.1".parse::<Endpoint>().is_err());
/// # Ok::<(), pinmesh_transport::TransportError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(Address);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Address {
    Tcp { host: Host, port: u16 },
    Ipc(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    Any,
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Name(String),
}

impl Endpoint {
    /// The tcp endpoint of an address.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        let host = match address.ip() {
            IpAddr::V4(ip) => Host::V4(ip),
            IpAddr::V6(ip) => Host::V6(ip),
        };
        Self(Address::Tcp { host, port: address.port() })
    }

    /// The ipc endpoint of an absolute path.
    ///
    /// # Errors
    /// The path is relative, too long, or not UTF-8.
    pub fn ipc(path: &Path) -> Result<Self> {
        format!("ipc://{}", path.display()).parse()
    }

    /// Whether only this host can reach it: a loopback address, `localhost`, or a path.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match &self.0 {
            Address::Ipc(_) => true,
            Address::Tcp { host, .. } => match host {
                Host::Any => false,
                Host::V4(ip) => ip.is_loopback(),
                Host::V6(ip) => {
                    ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
                }
                Host::Name(name) => is_localhost(name),
            },
        }
    }

    /// The path of an ipc endpoint.
    #[must_use]
    pub fn ipc_path(&self) -> Option<&Path> {
        match &self.0 {
            Address::Ipc(path) => Some(path),
            Address::Tcp { .. } => None,
        }
    }

    /// The port of a tcp endpoint; 0 if the system is to choose it.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match &self.0 {
            Address::Tcp { port, .. } => Some(*port),
            Address::Ipc(_) => None,
        }
    }

    pub(crate) fn is_ipv6(&self) -> bool {
        matches!(&self.0, Address::Tcp { host: Host::V6(_), .. })
    }

    /// libzmq binds to addresses and to names of network interfaces, never to host names.
    pub(crate) fn check_bind(&self) -> Result<()> {
        match &self.0 {
            Address::Tcp { host: Host::Name(name), .. } if !is_localhost(name) => Err(self.wrong(
                format!("`{name}` is a name; a bind needs an address of this host, or `*` for all"),
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_connect(&self) -> Result<()> {
        match &self.0 {
            Address::Tcp { port: 0, .. } => {
                Err(self.wrong("a connection needs the port that the broker bound, 1 to 65535"))
            }
            Address::Tcp { host: Host::Any, .. } => {
                Err(self.wrong("`*` can only be bound; name the broker's host"))
            }
            Address::Tcp { host: Host::V4(Ipv4Addr::UNSPECIFIED), .. }
            | Address::Tcp { host: Host::V6(Ipv6Addr::UNSPECIFIED), .. } => {
                Err(self.wrong("this address can only be bound; name the broker's host"))
            }
            Address::Tcp { .. } | Address::Ipc(_) => Ok(()),
        }
    }

    /// The endpoint as libzmq is to see it.
    pub(crate) fn zmq_address(&self) -> String {
        match &self.0 {
            // libzmq resolves names only for connections, and to IPv6 first if that is on.
            Address::Tcp { host: Host::Name(name), port } if is_localhost(name) => {
                format!("tcp://{}:{port}", Ipv4Addr::LOCALHOST)
            }
            Address::Tcp { .. } | Address::Ipc(_) => self.to_string(),
        }
    }

    fn wrong(&self, reason: impl Into<String>) -> TransportError {
        TransportError::Endpoint { endpoint: self.to_string(), reason: reason.into() }
    }
}

fn is_localhost(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Address::Tcp { host: Host::Any, port } => write!(f, "tcp://*:{port}"),
            Address::Tcp { host: Host::V4(ip), port } => write!(f, "tcp://{ip}:{port}"),
            Address::Tcp { host: Host::V6(ip), port } => write!(f, "tcp://[{ip}]:{port}"),
            Address::Tcp { host: Host::Name(name), port } => write!(f, "tcp://{name}:{port}"),
            Address::Ipc(path) => write!(f, "ipc://{}", path.display()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = if let Some(rest) = text.strip_prefix("tcp://") {
            parse_tcp(rest)
        } else if let Some(path) = text.strip_prefix("ipc://") {
            parse_ipc(path)
        } else {
            Err("must start with `tcp://` or `ipc://`, as in `tcp://127.0.0.1:5555`".into())
        };
        parsed
            .map(Self)
            .map_err(|reason| TransportError::Endpoint { endpoint: text.to_owned(), reason })
    }
}

fn parse_ipc(path: &str) -> Result<Address, String> {
    if !path.starts_with('/') {
        return Err("an ipc path must be absolute, as in `ipc:///run/pinmesh/frontend`".into());
    }
    if path.ends_with('/') {
        return Err("the path is a folder; name a file in it".into());
    }
    if path.len() > IPC_PATH_BYTES_MAX {
        return Err(format!(
            "the path has {} bytes, a Unix socket's may have {IPC_PATH_BYTES_MAX}; shorten it",
            path.len()
        ));
    }
    if path.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("the path must not hold control characters".into());
    }
    Ok(Address::Ipc(path.into()))
}

fn parse_tcp(rest: &str) -> Result<Address, String> {
    let (host, port) = rest
        .rsplit_once(':')
        .filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'))
        .ok_or("the port is missing, as in `tcp://127.0.0.1:5555`")?;
    Ok(Address::Tcp { host: parse_host(host)?, port: parse_port(port)? })
}

fn parse_port(text: &str) -> Result<u16, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text {
        "*" => Ok(0),
        _ if is_number => {
            text.parse().map_err(|_| format!("port {text} is out of range, 0 to 65535"))
        }
        _ => Err(format!("`{text}` is no port: a number from 1 to 65535, or `*`")),
    }
}

fn parse_host(text: &str) -> Result<Host, String> {
    if text == "*" {
        return Ok(Host::Any);
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner
            .parse()
            .map(Host::V6)
            .map_err(|_| format!("`{inner}` is no IPv6 address (zones are not supported)"));
    }
    if text.contains(':') {
        return Err("an IPv6 address needs brackets, as in `tcp://[::1]:5555`".into());
    }
    if let Ok(ip) = text.parse() {
        return Ok(Host::V4(ip));
    }
    let is_numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if text.is_empty() || is_numeric || text.len() > NAME_BYTES_MAX || !text.bytes().all(in_name) {
        return Err(format!("`{text}` is neither an IP address nor a host name"));
    }
    Ok(Host::Name(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_back_as_it_was_written() {
        for text in [
            "tcp://127.0.0.1:5555",
            "tcp://[::1]:5555",
            "tcp://[fe80::1]:1",
            "tcp://*:65535",
            "tcp://broker-1.example:5555",
            "ipc:///run/pinmesh/frontend",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("tcp://127.0.0.1:*".parse::<Endpoint>().unwrap().port(), Some(0));
        let address = "[::1]:7".parse().unwrap();
        assert_eq!(Endpoint::tcp(address).to_string(), "tcp://[::1]:7");
    }

    #[test]
    fn only_loopback_and_paths_are_local() {
        for (text, local) in [
            ("tcp://127.0.0.1:1", true),
            ("tcp://127.9.9.9:1", true),
            ("tcp://localhost:1", true),
            ("tcp://[::1]:1", true),
            ("tcp://[::ffff:127.0.0.1]:1", true),
            ("ipc:///tmp/x", true),
            ("tcp://*:1", false),
            ("tcp://0.0.0.0:1", false),
            ("tcp://[::]:1", false),
            ("tcp://10.0.0.1:1", false),
            ("tcp://localhost.example:1", false),
            ("tcp://lo:1", false),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().is_local(), local, "{text}");
        }
    }

    #[test]
    fn a_malformed_endpoint_is_refused_with_what_would_be_right() {
        let long = format!("ipc:///{}", "x".repeat(107));
        for (text, reason) in [
            ("", "must start with `tcp://` or `ipc://`"),
            ("udp://127.0.0.1:1", "must start with `tcp://` or `ipc://`"),
            ("inproc://x", "must start with `tcp://` or `ipc://`"),
            ("tcp://127.0.0.1", "the port is missing"),
            ("tcp://[::1]", "the port is missing"),
            ("tcp://127.0.0.1:", "`` is no port"),
            ("tcp://127.0.0.1:+1", "`+1` is no port"),
            ("tcp://127.0.0.1:65536", "port 65536 is out of range"),
            ("tcp://::1:5555", "needs brackets"),
            ("tcp://[::1%lo]:5555", "`::1%lo` is no IPv6 address"),
            ("tcp://:5555", "`` is neither an IP address nor a host name"),
            ("tcp://1.2.3:5555", "`1.2.3` is neither"),
            ("tcp://a;b:5555", "`a;b` is neither"),
            ("ipc://x", "must be absolute"),
            ("ipc://@abstract", "must be absolute"),
            ("ipc://*", "must be absolute"),
            ("ipc:///tmp/", "is a folder"),
            ("ipc:///tmp/a\0b", "control characters"),
            (&long, "has 108 bytes"),
        ] {
            let message = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(message.contains(reason), "{text}: {message}");
        }
    }

    #[test]
    fn what_can_only_be_bound_is_not_connected_to_and_the_reverse() {
        for (text, bind, connect) in [
            ("tcp://*:1", true, false),
            ("tcp://0.0.0.0:1", true, false),
            ("tcp://[::]:1", true, false),
            ("tcp://127.0.0.1:0", true, false),
            ("tcp://broker:1", false, true),
            ("tcp://localhost:1", true, true),
            ("ipc:///tmp/x", true, true),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.check_bind().is_ok(), bind, "{text}");
            assert_eq!(endpoint.check_connect().is_ok(), connect, "{text}");
        }
    }
}
