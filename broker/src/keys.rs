//! Keys: who may connect, told to the log.

use std::time::{Duration, Instant};

use pinmesh_core::Side;
use pinmesh_transport::{
    AllowList, Authenticator, Context, KeyPair, Role, Security, SharedAllowList,
};

use crate::config::KeyFiles;
use crate::error::BrokerError;

/// How often refused handshakes are looked for. They wake nobody, and a stranger may try without
/// end: the log gets one line for all of them.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module. Everyone else's handshake fails.
pub(crate) struct Keys {
    files: KeyFiles,
    own: KeyPair,
    authenticator: Authenticator,
    /// Refusals that have been told.
    told: u64,
    looked: Instant,
}

impl Keys {
    /// Reads the files and starts the authenticator, which shows at once that it refuses an unknown
    /// key. To be called before anything is bound.
    pub(crate) fn start(context: &Context, files: &KeyFiles) -> Result<Self, BrokerError> {
        let failed = |source| BrokerError::Transport { what: "keys", source };
        let own = KeyPair::load(&files.key).map_err(failed)?;
        let list = SharedAllowList::load(&files.authorized_keys).map_err(failed)?;
        let authenticator = Authenticator::start(context, list).map_err(failed)?;
        let authorized = authenticator.allow_list().read(AllowList::len);
        tracing::info!(
            public_key = %own.public(),
            authorized,
            "keys are on: only keys that {} lists may connect, and an unknown one was refused when \
             it was tried just now",
            files.authorized_keys.display()
        );
        if authorized == 0 {
            tracing::warn!("no key is listed, so nobody can connect; add some and send SIGHUP");
        }
        Ok(Self { files: files.clone(), own, authenticator, told: 0, looked: Instant::now() })
    }

    /// For the socket of one side.
    pub(crate) fn security(&self, side: Side) -> Security {
        let role = match side {
            Side::Frontend => Role::Client,
            Side::Backend => Role::Worker,
        };
        self.authenticator.server(&self.own, role)
    }

    /// Reads the list again; on an error the old one stays in force.
    pub(crate) fn reload(&self) {
        let file = self.files.authorized_keys.display();
        match self.authenticator.allow_list().reload() {
            Ok(changes) => {
                let (authorized, added) = (changes.keys, changes.added);
                let (changed, removed) = (changes.changed, changes.removed);
                tracing::info!(authorized, added, changed, removed, "SIGHUP: {file} is in force");
                if changed + removed > 0 {
                    tracing::warn!(
                        "connections that stand go on by the old list; restart the broker to end \
                         them"
                    );
                }
            }
            Err(error) => {
                let kept = self.authenticator.allow_list().read(AllowList::len);
                tracing::error!(%error, kept, "SIGHUP: the old list stays in force");
            }
        }
    }

    /// Tells of handshakes that have been refused, once a second at most.
    pub(crate) fn look(&mut self, now: Instant) {
        if now.saturating_duration_since(self.looked) < LOOK_EVERY {
            return;
        }
        self.looked = now;
        let refused = self.authenticator.counters().refused;
        if refused == self.told {
            return;
        }
        let more = refused - self.told;
        self.told = refused;
        if let Some(last) = self.authenticator.take_last_refusal() {
            let key = last.key.map(tracing::field::display);
            let (address, reason) = (last.address, last.reason);
            tracing::warn!(refused = more, address, key, reason, "refused; shown is the last one");
        }
    }

    pub(crate) fn report(&self) {
        let counters = self.authenticator.counters();
        let authorized = self.authenticator.allow_list().read(AllowList::len);
        tracing::info!(
            "keys: {authorized} authorized, {} handshakes accepted, {} refused",
            counters.accepted,
            counters.refused
        );
    }
}
