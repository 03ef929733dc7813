//! Keys, made by `pinmesh keygen` as an operator makes them.

use std::fs;
use std::path::PathBuf;

use pinmesh_client::{Builder, Client, PeerKeys};
use tempfile::TempDir;

use crate::{READY_LIMIT, run};

/// A folder with the keys of a mesh: a broker's, `farm` for workers, `batch` for clients, and a list
/// of these two.
#[derive(Debug)]
pub struct KeyRing {
    folder: TempDir,
}

impl Default for KeyRing {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyRing {
    /// Makes them.
    #[track_caller]
    pub fn new() -> Self {
        let ring = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        ring.make("broker", "broker");
        let (farm, batch) = (ring.make("farm", "worker"), ring.make("batch", "client"));
        ring.list(&[&farm, &batch]);
        ring
    }

    /// Makes one more, and returns its line for the list, which is left as it is.
    ///
    /// # Panics
    /// `pinmesh keygen` fails.
    #[track_caller]
    pub fn make(&self, name: &str, role: &str) -> String {
        let folder = self.folder.path().to_str().expect("UTF-8");
        let finished = run("pinmesh", ["keygen", name, "--role", role, "--dir", folder]);
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        finished.stdout
    }

    /// Writes the list.
    ///
    /// # Panics
    /// The folder cannot be written.
    pub fn list(&self, lines: &[&str]) {
        let text = lines.join("\n") + "\n";
        fs::write(self.path("authorized_keys"), text).expect("a folder of our own");
    }

    /// A file of the folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The path of a file, as text.
    ///
    /// # Panics
    /// It is no UTF-8.
    pub fn file(&self, file: &str) -> String {
        self.path(file).to_str().expect("UTF-8").to_owned()
    }

    /// Flags of the broker.
    pub fn broker_flags(&self) -> [String; 4] {
        let (key, list) = (self.file("broker.key"), self.file("authorized_keys"));
        ["--key".into(), key, "--authorized-keys".into(), list]
    }

    /// Flags of a worker or a command that has the key of this name.
    pub fn peer_flags(&self, name: &str) -> [String; 4] {
        let (key, broker) = (self.file(&format!("{name}.key")), self.file("broker.pub"));
        ["--key".into(), key, "--broker-key".into(), broker]
    }

    /// The keys of the library.
    ///
    /// # Panics
    /// There is no key of this name.
    #[track_caller]
    pub fn peer(&self, name: &str) -> PeerKeys {
        PeerKeys::load(self.path(&format!("{name}.key")), [self.file("broker.pub")])
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// A client that has the key of this name, before it connects.
    #[track_caller]
    pub fn client(&self, name: &str, frontend: &str) -> Builder {
        Client::builder().broker(frontend).keys(self.peer(name)).connect_timeout(READY_LIMIT)
    }
}
