//! One request after the other to a broker's admin API, over TCP or a unix socket.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::failure::{Failure, UNREACHABLE};

/// How long an answer may take. A purge takes several turns of the broker's loop, each bounded.
const ANSWER_MAX: Duration = Duration::from_secs(60);

enum Target {
    Tcp(String),
    Unix(String),
}

/// A broker's admin API.
pub(super) struct Api {
    target: Target,
    runtime: tokio::runtime::Runtime,
}

impl Api {
    /// The API at `ADDRESS:PORT` or `unix:/PATH`. Nothing is connected yet.
    pub(super) fn new(listen: &str) -> Result<Self, Failure> {
        let target = match listen.strip_prefix("unix:") {
            Some(path) => Target::Unix(path.strip_prefix("//").unwrap_or(path).to_owned()),
            None => {
                let plain = listen.strip_prefix("http://").unwrap_or(listen).trim_end_matches('/');
                let port = plain.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                if port.is_none() {
                    let remedy = "write ADDRESS:PORT, such as 127.0.0.1:5557, or unix:/PATH, as \
                                  the broker's readiness line says";
                    return Err(Failure::usage(format!("--http {listen}: has no port: {remedy}")));
                }
                Target::Tcp(plain.to_owned())
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure {
            message: format!("cannot start: {error}"),
            code: UNREACHABLE,
        })?;
        Ok(Self { target, runtime })
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.request(Method::GET, path)
    }

    pub(super) fn post(&self, path: &str) -> Result<Value, Failure> {
        self.request(Method::POST, path)
    }

    /// What is there, byte for byte.
    pub(super) fn get_bytes(&self, path: &str) -> Result<Vec<u8>, Failure> {
        match self.ask(Method::GET, path)? {
            (status, bytes) if status.is_success() => Ok(bytes.into()),
            (_, bytes) => Err(Self::refusal(&self.read(&bytes)?)),
        }
    }

    fn request(&self, method: Method, path: &str) -> Result<Value, Failure> {
        let (status, bytes) = self.ask(method, path)?;
        let value = self.read(&bytes)?;
        if status.is_success() { Ok(value) } else { Err(Self::refusal(&value)) }
    }

    fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(ANSWER_MAX, self.exchange(method, path)).await
        });
        match answer {
            Ok(answer) => answer.map_err(|error| self.unreachable(&error)),
            Err(_) => Err(self.unreachable(&io::ErrorKind::TimedOut.into())),
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<Value, Failure> {
        serde_json::from_slice(bytes).map_err(|_| Failure {
            message: format!("{} speaks no admin API of pinmesh: {}", self.name(), self.remedy()),
            code: UNREACHABLE,
        })
    }

    async fn exchange(&self, method: Method, path: &str) -> io::Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(
                header::HOST,
                match &self.target {
                    Target::Tcp(address) => address.as_str(),
                    Target::Unix(_) => "localhost",
                },
            )
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        match &self.target {
            Target::Tcp(address) => {
                send(tokio::net::TcpStream::connect(address).await?, request).await
            }
            Target::Unix(path) => send(tokio::net::UnixStream::connect(path).await?, request).await,
        }
    }

    fn refusal(value: &Value) -> Failure {
        let word = |key: &str| value[key].as_str().unwrap_or("?").to_owned();
        Failure::task(format!("{}: {}", word("error"), word("remedy")))
    }

    fn name(&self) -> String {
        match &self.target {
            Target::Tcp(address) => format!("http://{address}"),
            Target::Unix(path) => format!("unix:{path}"),
        }
    }

    fn remedy(&self) -> &'static str {
        "give the address of the broker's readiness line (http=...) with --http or PINMESH_HTTP"
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let (name, remedy) = (self.name(), self.remedy());
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                format!("no broker's admin API listens at {name}")
            }
            io::ErrorKind::PermissionDenied => {
                format!("the admin API at {name} is for the broker's own user only")
            }
            _ => format!("the admin API at {name} cannot be asked ({error})"),
        };
        Failure { message: format!("{why}: {remedy}"), code: UNREACHABLE }
    }
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> io::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
}

/// A name as one segment of a path or one value of a query.
pub(super) fn segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn whatever_a_service_is_called_stays_one_segment() {
        assert_eq!(segment("thumb-1.2_~"), "thumb-1.2_~");
        assert_eq!(segment("a/b?c=d&e f%"), "a%2Fb%3Fc%3Dd%26e%20f%25");
        assert_eq!(segment("ü"), "%C3%BC");
    }
}
