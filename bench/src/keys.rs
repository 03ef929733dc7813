//! Keys: those of a given broker, and those made for a mesh of one's own.

use std::{ffi::OsString, fs, path::PathBuf};

use clap::Args;
use pinmesh_client::{KeyPair, PeerKeys, TransportError};
use tempfile::TempDir;

use crate::{error::BenchError, mesh::Mesh};

/// How the clients connect.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeyArgs {
    /// File with the secret key of the clients, as `pinmesh keygen` writes it, for brokers with keys
    #[arg(long, value_name = "FILE", requires = "broker", requires = "broker_keys")]
    key: Option<PathBuf>,

    /// Public key of the brokers, or a file that holds it; repeat it where each has another
    #[arg(
        long = "broker-key",
        value_name = "KEY|FILE",
        requires = "key",
        allow_hyphen_values = true
    )]
    broker_keys: Vec<String>,

    /// Start the mesh of the run with keys made for it (CURVE): everything is encrypted, and the
    /// difference to a run without is what that costs
    #[arg(long, conflicts_with = "broker")]
    pub(crate) curve: bool,
}

impl KeyArgs {
    /// Whether the connections are encrypted.
    pub(crate) fn are_on(&self) -> bool {
        self.curve || self.key.is_some()
    }

    /// Those of the clients: of the mesh that was started, or of the given brokers.
    pub(crate) fn of_clients(&self, mesh: Option<&Mesh>) -> Result<Option<PeerKeys>, BenchError> {
        if let Some(mesh) = mesh {
            return Ok(mesh.client_keys().cloned());
        }
        let Some(key) = &self.key else { return Ok(None) };
        PeerKeys::load(key, &self.broker_keys).map(Some).map_err(unusable)
    }
}

fn unusable(source: TransportError) -> BenchError {
    BenchError::Keys { source }
}

/// Keys of a mesh of one's own. The files are gone when this is dropped.
#[derive(Debug)]
pub(crate) struct MeshKeys {
    folder: TempDir,
    clients: PeerKeys,
}

impl MeshKeys {
    /// Makes them.
    pub(crate) fn make() -> Result<Self, BenchError> {
        let folder = tempfile::tempdir()
            .map_err(|source| BenchError::System { action: "make a folder for keys", source })?;
        let saved = |file: &str| {
            let pair = KeyPair::generate().map_err(unusable)?;
            pair.save(&folder.path().join(file)).map_err(unusable)?;
            Ok::<_, BenchError>(pair)
        };
        let (broker, workers) = (saved("broker.key")?, saved("workers.key")?);
        let clients = KeyPair::generate().map_err(unusable)?;
        let write = |file: &str, text: String| {
            let path = folder.path().join(file);
            fs::write(&path, text).map_err(|source| BenchError::Write { path, source })
        };
        let (worker, client) = (workers.public(), clients.public());
        write("authorized_keys", format!("workers {worker} worker\nclients {client} client\n"))?;
        write("broker.pub", format!("{}\n", broker.public()))?;
        Ok(Self { clients: PeerKeys::new(&clients, &[broker.public()]), folder })
    }

    fn file(&self, name: &str) -> OsString {
        self.folder.path().join(name).into_os_string()
    }

    /// Flags of the broker.
    pub(crate) fn of_broker(&self) -> [OsString; 4] {
        let (key, list) = (self.file("broker.key"), self.file("authorized_keys"));
        ["--key".into(), key, "--authorized-keys".into(), list]
    }

    /// Flags of the workers.
    pub(crate) fn of_workers(&self) -> [OsString; 4] {
        let (key, broker) = (self.file("workers.key"), self.file("broker.pub"));
        ["--key".into(), key, "--broker-key".into(), broker]
    }

    /// Of the clients.
    pub(crate) fn of_clients(&self) -> &PeerKeys {
        &self.clients
    }
}
