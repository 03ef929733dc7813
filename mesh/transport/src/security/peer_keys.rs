//! What a peer needs to connect: its own key, and those of its brokers.

use std::path::Path;
use std::sync::Arc;

use crate::Result;
use crate::options::SocketOptions;
use crate::security::keys::{KeyPair, PublicKey};
use crate::security::{Security, wrong};

/// The keys of a client or a worker: its own pair, and the public keys of its brokers.
///
/// ```no_run
/// use pinmesh_transport::PeerKeys;
///
/// # fn main() -> Result<(), pinmesh_transport::TransportError> {
/// let keys = PeerKeys::load("/etc/pinmesh/batch-1.key", ["/etc/pinmesh/broker.pub"])?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PeerKeys {
    own: Arc<KeyPair>,
    brokers: Vec<PublicKey>,
}

impl PeerKeys {
    /// One key for all brokers, or one for each, in their order.
    #[must_use]
    pub fn new(own: &KeyPair, brokers: &[PublicKey]) -> Self {
        Self { own: Arc::new(own.clone()), brokers: brokers.to_owned() }
    }

    /// Reads its own secret key from a file; each of the brokers' is a public key, or a file that
    /// holds one.
    ///
    /// # Errors
    /// A file cannot be read, the secret one can be by others, a key is none, or this libzmq has no
    /// CURVE.
    pub fn load<B: AsRef<str>>(
        own: impl AsRef<Path>,
        brokers: impl IntoIterator<Item = B>,
    ) -> Result<Self> {
        let own = KeyPair::load(own.as_ref())?;
        let brokers = brokers.into_iter().map(|broker| PublicKey::text_or_file(broker.as_ref()));
        Ok(Self::new(&own, &brokers.collect::<Result<Vec<_>>>()?))
    }

    /// The public half of its own key, which the brokers' `authorized_keys` must list.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.own.public()
    }

    /// Whether these are the keys for so many brokers.
    ///
    /// # Errors
    /// There is neither one key for all of them nor one for each.
    pub fn check(&self, brokers: usize) -> Result<()> {
        match self.brokers.len() {
            1 => Ok(()),
            keys if keys == brokers => Ok(()),
            keys => Err(wrong(format!(
                "{keys} broker keys for {brokers} brokers: give one for all of them, or one for \
                 each in the same order"
            ))),
        }
    }

    /// Options of the socket to each of so many brokers, with these keys or, for `None`, without.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn socket_options(keys: Option<&Self>, brokers: usize) -> Result<Vec<SocketOptions>> {
        let Some(keys) = keys else { return Ok(vec![SocketOptions::default(); brokers]) };
        keys.check(brokers)?;
        let one_for_all = if keys.brokers.len() == 1 { brokers } else { 1 };
        let each = keys.brokers.iter().flat_map(|key| std::iter::repeat_n(key, one_for_all));
        let options = each.map(|key| SocketOptions {
            security: Some(Security::client(*key, &keys.own)),
            ..SocketOptions::default()
        });
        Ok(options.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_key_for_all_brokers_or_one_for_each() {
        let own = KeyPair::generate().unwrap();
        let keys = [own.public(); 2];
        let options = |keys, brokers| PeerKeys::socket_options(Some(keys), brokers);
        let one = PeerKeys::new(&own, &keys[..1]);
        assert_eq!(options(&one, 3).unwrap().len(), 3);
        let two = PeerKeys::new(&own, &keys);
        let found = options(&two, 2).unwrap();
        assert!(found.len() == 2 && found.iter().all(|options| options.security.is_some()));
        let message = options(&two, 3).unwrap_err().to_string();
        assert!(message.contains("2 broker keys for 3 brokers"), "{message}");
        assert!(PeerKeys::new(&own, &[]).check(1).is_err());
        let plain = PeerKeys::socket_options(None, 2).unwrap();
        assert!(plain.len() == 2 && plain.iter().all(|options| options.security.is_none()));
    }

    #[test]
    fn keys_are_read_from_files_and_text() {
        let folder = tempfile::tempdir().unwrap();
        let (own, broker) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap().public());
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        own.save(Path::new(&file("own.key"))).unwrap();
        std::fs::write(file("broker.pub"), format!("# a broker\n{broker}\n")).unwrap();
        let keys = PeerKeys::load(file("own.key"), [file("broker.pub"), broker.to_string()]);
        let keys = keys.unwrap();
        assert_eq!((keys.public(), keys.brokers), (own.public(), vec![broker; 2]));
        let error = |broker: String| PeerKeys::load(file("own.key"), [broker]).unwrap_err();
        let message = error(file("own.key")).to_string();
        assert!(message.contains("secret key"), "{message}");
        let message = error("nowhere".into()).to_string();
        assert!(message.contains("`nowhere` is neither a public key"), "{message}");
        let message = error(file("nowhere")).to_string();
        assert!(message.contains("neither a public key") && message.contains("No such file"));
    }
}
