//! Where the admin API listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpListen {
    /// Nowhere.
    Off,
    /// At a loopback address, which every user of this host can reach.
    Tcp(SocketAddr),
    /// At a unix socket, which only this user can open.
    Unix(PathBuf),
}

impl Default for HttpListen {
    fn default() -> Self {
        Self::Tcp(([127, 0, 0, 1], 5557).into())
    }
}

impl fmt::Display for HttpListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for HttpListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            // unix:///run/x is what other programs say.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err("unix: needs a whole path, such as unix:/run/pinmesh/http".to_owned()),
            };
        }
        let plain = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let plain = match plain.strip_suffix(":*") {
            Some(host) => format!("{host}:0"),
            None => plain.replacen("localhost:", "127.0.0.1:", 1),
        };
        let address: SocketAddr = plain.parse().map_err(|_| {
            "must be ADDRESS:PORT, such as 127.0.0.1:5557 or [::1]:5557, unix:/PATH, or off"
                .to_owned()
        })?;
        if !address.ip().is_loopback() {
            return Err(
                "other hosts could reach it, and whoever reaches it may cancel and purge; \
                        bind to 127.0.0.1 or unix:/PATH, and come from elsewhere by `ssh -L \
                        5557:127.0.0.1:5557 HOST`"
                    .to_owned(),
            );
        }
        Ok(Self::Tcp(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["off", "127.0.0.1:5557", "[::1]:0", "unix:/run/x.sock"] {
            let listen: HttpListen = text.parse().expect(text);
            assert_eq!(listen.to_string(), text);
        }
        for (text, shown) in [
            ("localhost:7", "127.0.0.1:7"),
            ("127.0.0.1:*", "127.0.0.1:0"),
            ("unix:///run/x", "unix:/run/x"),
            ("http://127.0.0.1:7/", "127.0.0.1:7"),
        ] {
            assert_eq!(
                text.parse::<HttpListen>().map(|listen| listen.to_string()).as_deref(),
                Ok(shown)
            );
        }
    }

    #[test]
    fn an_address_that_others_can_reach_is_refused_with_the_remedy() {
        for text in ["0.0.0.0:5557", "10.0.0.1:5557", "[::]:5557"] {
            let error = text.parse::<HttpListen>().expect_err(text);
            assert!(error.contains("unix:/PATH") && error.contains("ssh -L"), "{error}");
        }
        for text in ["", "5557", "127.0.0.1", "unix:x", "tcp://127.0.0.1:1", "OFF"] {
            assert!(text.parse::<HttpListen>().is_err(), "{text}");
        }
    }
}
