//! What only several settings together can be wrong about.

use pinmesh_core::Span;
use pinmesh_transport::{AllowList, KeyPair};

use super::value::{show_bytes, show_span};
use super::{Config, ConfigLoader};

impl ConfigLoader {
    /// Notes every such problem.
    pub(super) fn check_together(&mut self) {
        let config = self.config.clone();
        let core = &config.core;
        let silence = core.heartbeat.0.saturating_mul(core.liveness.into());
        if core.lease.0 <= silence {
            let silence = show_span(Span(silence));
            self.wrong("sessions", "lease", &format!(
                "must be longer than heartbeat x liveness = {silence}, or a host loses its lease \
                 before it is missed; raise lease, or lower heartbeat or liveness"
            ));
        }
        let payload = show_bytes(core.payload_bytes_max);
        if core.client_window_bytes < core.payload_bytes_max {
            self.wrong(
                "limits",
                "client_window_bytes",
                &format!(
                    "must be at least payload = {payload}, or the longest payload could never be \
                 submitted; raise it or lower payload"
                ),
            );
        }
        if core.memory_bytes_max < core.payload_bytes_max {
            self.wrong(
                "limits",
                "memory",
                &format!(
                    "must be at least payload = {payload}, or the longest payload would always be \
                 BUSY; raise it or lower payload"
                ),
            );
        }
        let own = core.own_service_limits.len();
        if own > (core.services_max - core.services_max / 4) as usize {
            self.wrong(
                "limits",
                "services",
                &format!(
                    "{own} services are configured, and a quarter of the room is for those that \
                     workers name; raise it"
                ),
            );
        }
        let is_chosen_by_the_system = config.frontend.port() == Some(0);
        if config.frontend == config.backend && !is_chosen_by_the_system {
            self.wrong("listen", "backend", "is the frontend too; give each its own");
        }
        for (key, endpoint) in [("frontend", &config.frontend), ("backend", &config.backend)] {
            if !endpoint.is_local() && !config.insecure && config.key_files().is_none() {
                self.wrong(
                    "listen",
                    key,
                    "other hosts can reach it and there are no keys: set [security] key and \
                     authorized_keys (--key, --authorized-keys), bind to 127.0.0.1, [::1] or \
                     ipc://, or set insecure = true (--insecure) if everyone on that network may \
                     submit and run tasks",
                );
            }
        }
        self.check_keys(&config);
    }

    fn check_keys(&mut self, config: &Config) {
        const SECTION: &str = "security";
        match (&config.key, &config.authorized_keys) {
            (None, None) => return,
            (Some(_), None) => {
                let reason = "needs authorized_keys (--authorized-keys) beside it: the list of \
                              keys that may connect";
                return self.wrong(SECTION, "key", reason);
            }
            (None, Some(_)) => {
                let reason = "needs key (--key) beside it: the broker's own, which `pinmesh keygen \
                              NAME --role broker` makes";
                return self.wrong(SECTION, "authorized_keys", reason);
            }
            (Some(key), Some(list)) => {
                if let Err(error) = KeyPair::load(key) {
                    self.wrong(SECTION, "key", &error.to_string());
                }
                if let Err(error) = AllowList::load(list) {
                    self.wrong(SECTION, "authorized_keys", &error.to_string());
                }
            }
        }
        if config.insecure {
            let reason = "contradicts the keys, which keep strangers out; leave out one of them";
            self.wrong("listen", "insecure", reason);
        }
    }
}
