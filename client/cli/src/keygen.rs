//! `keygen`, and the keys that the other commands connect with.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use pinmesh_client::{KeyPair, PeerKeys};

use crate::args::Connection;
use crate::failure::{Failure, OK, OUTPUT};
use crate::progress::say;

/// Longest name that `authorized_keys` takes.
const NAME_BYTES_MAX: usize = 64;

/// Whose key it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum KeyRole {
    /// Submits tasks: for the frontend
    Client,
    /// Runs tasks, a supervisor and its workers: for the backend
    Worker,
    /// Its peers are given the public key
    Broker,
}

/// Writes NAME.key, which holds the secret key and is for its owner only.
///
/// Prints the line for the brokers' authorized_keys; for a broker, whose peers need the public key,
/// it prints that and writes it to NAME.pub. Nothing is ever overwritten.
#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// Whose key it is, for people: letters, digits and ._@-
    #[arg(value_parser = name)]
    name: String,
    /// What it connects as
    #[arg(long, value_enum, default_value_t = KeyRole::Client)]
    role: KeyRole,
    /// Folder for the files
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

fn name(text: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_good) {
        return Ok(text.to_owned());
    }
    Err(format!("must have 1 to {NAME_BYTES_MAX} letters, digits and characters of ._@-"))
}

/// Makes the key.
pub(crate) fn run(args: &Keygen) -> Result<u8, Failure> {
    let Keygen { name, role, dir } = args;
    let file = |extension: &str| dir.join(format!("{name}.{extension}"));
    let (secret_file, public_file) = (file("key"), file("pub"));
    let is_broker = *role == KeyRole::Broker;
    let files = [&secret_file, &public_file];
    if let Some(there) = files[..1 + usize::from(is_broker)].iter().find(|file| file.exists()) {
        return Err(Failure::usage(format!(
            "`{}` is there already, and a key is never overwritten: take another NAME or --dir, or \
             remove it if nobody uses it any more",
            there.display()
        )));
    }
    let keys = KeyPair::generate().map_err(|error| Failure::usage(error.to_string()))?;
    keys.save(&secret_file).map_err(|error| cannot_write(&error))?;
    let public = keys.public();
    let line = match role {
        KeyRole::Client => format!("{name} {public} client\n"),
        KeyRole::Worker => format!("{name} {public} worker\n"),
        KeyRole::Broker => format!("{public}\n"),
    };
    if is_broker {
        write_new(&public_file, &format!("# public key of the broker {name}\n{line}"))
            .map_err(|error| cannot_write(&format!("`{}`: {error}", public_file.display())))?;
    }
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))?;
    say(next_step(*role, &secret_file, &public_file).as_bytes());
    Ok(OK)
}

fn cannot_write(error: &dyn std::fmt::Display) -> Failure {
    let message = format!("{error}; name a folder that is there and yours with --dir");
    Failure { message, code: OUTPUT }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn next_step(role: KeyRole, secret: &Path, public: &Path) -> String {
    let (secret, public) = (secret.display(), public.display());
    let mut text = format!("pinmesh: wrote {secret}, the secret key; it stays on its host\n");
    let _ = match role {
        KeyRole::Broker => write!(
            text,
            "pinmesh: wrote {public}, for the peers: copy it to each host (--broker-key)\n\
             next: pinmesh-broker --key {secret} --authorized-keys authorized_keys"
        ),
        KeyRole::Client => write!(
            text,
            "next: append the line to the brokers' authorized_keys (kill -HUP reloads it), then\n\
             pinmesh --broker ENDPOINT --key {secret} --broker-key BROKER.pub ping\n\
             where BROKER.pub is what `pinmesh keygen BROKER --role broker` wrote"
        ),
        KeyRole::Worker => write!(
            text,
            "next: append the line to the brokers' authorized_keys (kill -HUP reloads it), then\n\
             pinmesh-worker --backend ENDPOINT --key {secret} --broker-key BROKER.pub\n\
             where BROKER.pub is what `pinmesh keygen BROKER --role broker` wrote"
        ),
    };
    text
}

/// The keys that a command connects with, if it is given any.
pub(crate) fn keys(connection: &Connection) -> Result<Option<PeerKeys>, Failure> {
    let Connection { key, broker_keys, brokers, .. } = connection;
    let keys = match (key, broker_keys.is_empty()) {
        (None, true) => return Ok(None),
        (None, false) => Err("--broker-key needs --key, the file of this client's own key".into()),
        (Some(_), true) => Err("--key needs --broker-key, the public key of the broker".into()),
        (Some(key), false) => PeerKeys::load(key, broker_keys)
            .and_then(|keys| keys.check(brokers.len()).map(|()| keys))
            .map_err(|error| format!("--key, --broker-key: {error}")),
    };
    keys.map(Some).map_err(Failure::usage)
}
