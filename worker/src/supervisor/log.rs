//! What the supervisor says to people, at changes of state only.

use std::io::Write;
use std::time::Duration;

use pinmesh_protocol::id::PeerId;
use pinmesh_protocol::status::LossKind;
use pinmesh_session::slots::BrokerIndex;
use pinmesh_session::supervision::{CloseReason, Note};
use pinmesh_transport::Endpoint;
use tracing::{debug, error, info, warn};

use super::SupervisorConfig;

/// Exit code of a program whose configuration is wrong.
const CONFIGURATION: i32 = 2;

/// One line of what runs where.
pub(super) fn starting(config: &SupervisorConfig, host: PeerId) {
    let public_key = config.keys.as_ref().map(|keys| tracing::field::display(keys.public()));
    info!(
        workers = config.cpus.len(),
        cpus = %list(&config.cpus),
        backends = %config.backends.join(","),
        name = %config.name,
        %host,
        public_key,
        "starting"
    );
}

/// The line that whoever started the host waits for.
pub(super) fn ready(cpus: &[Option<u16>]) {
    let mut out = std::io::stdout().lock();
    // Whoever closed our standard output does not want to know.
    let _ = writeln!(out, "pinmesh-worker ready workers={} cpus={}", cpus.len(), list(cpus));
    let _ = out.flush();
}

fn list(cpus: &[Option<u16>]) -> String {
    let pinned: Vec<_> = cpus.iter().flatten().map(u16::to_string).collect();
    if pinned.is_empty() { "none".to_owned() } else { pinned.join(",") }
}

/// A change of state of the machine's.
pub(super) fn note<'a>(note: Note, endpoint: &dyn Fn(BrokerIndex) -> &'a Endpoint) {
    match note {
        Note::Opened { broker, epoch } => {
            info!(broker = %endpoint(broker), epoch = %format_args!("{:08x}", epoch.0), "connected");
        }
        Note::Closed { broker, why, retry_in_ns } => {
            let broker = endpoint(broker);
            let retry_in = (retry_in_ns > 0).then(|| Duration::from_nanos(retry_in_ns));
            let retry_in = retry_in.map(tracing::field::debug);
            match why {
                CloseReason::NoWelcome => debug!(%broker, "no answer from the broker"),
                CloseReason::Silent => warn!(%broker, retry_in, "the broker is silent"),
                CloseReason::NoSession => {
                    info!(%broker, retry_in, "the broker does not know us");
                }
                CloseReason::Goodbye => info!(%broker, retry_in, "the broker left"),
                CloseReason::Refused(code) => {
                    error!(%broker, %code, retry_in, "the broker refused us");
                }
                CloseReason::Unreadable(code) => {
                    error!(%broker, %code, retry_in, "the broker sent what cannot be read");
                }
            }
        }
        Note::LeaseEnded { broker, epoch } => warn!(
            broker = %endpoint(broker),
            epoch = %format_args!("{:08x}", epoch.0),
            "the lease ended: what ran for this broker is killed"
        ),
        Note::Started { slot, incarnation } => {
            debug!(slot = slot.0, incarnation = incarnation.0, "waiting for the worker's loop");
        }
        Note::Up { slot, incarnation } => {
            info!(slot = slot.0, incarnation = incarnation.0, "worker is up");
        }
        Note::Ready => info!("every worker serves every broker"),
        Note::Overrun { slot, attempt, ran_ns, max_runtime_ns } => {
            let (ran, max_runtime) =
                (Duration::from_nanos(ran_ns), Duration::from_nanos(max_runtime_ns));
            warn!(slot = slot.0, %attempt, ?ran, ?max_runtime, "a task is past its max runtime");
        }
        Note::Killing { slot, cause } => warn!(slot = slot.0, %cause, "killing the worker"),
        Note::Died { slot, incarnation, cause, detail, running, was_starting } => {
            let running = running.map(|attempt| attempt.to_string());
            let (slot, incarnation) = (slot.0, incarnation.0);
            if cause == LossKind::Shutdown {
                info!(slot, incarnation, "worker left");
            } else if cause == LossKind::Exited && detail == CONFIGURATION && was_starting {
                error!(slot, incarnation, "worker refuses its configuration; see its message");
            } else if was_starting {
                error!(slot, incarnation, %cause, detail, "worker died before it was up");
            } else {
                warn!(slot, incarnation, %cause, detail, running, "worker died");
            }
        }
        Note::RestartIn { slot, delay_ns, failures } => {
            let delay = Duration::from_nanos(delay_ns);
            info!(slot = slot.0, ?delay, failures, "worker will be started again");
        }
        Note::SpawnFailed { slot } => debug!(slot = slot.0, "no worker"),
        Note::Renewing => info!("every worker is started anew, one after the other"),
        Note::RenewalOverdue { slot } => {
            warn!(slot = slot.0, "the worker took too long to leave: what it runs goes back");
        }
        Note::Renewed => info!("every worker has been started anew"),
        Note::Draining => info!("draining: workers finish what they run"),
        Note::DrainOverdue => warn!("the drain took too long: what runs is asked to stop"),
        Note::Drained => info!("drained"),
    }
}
