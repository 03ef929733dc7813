//! The processes of one mesh that is damaged: a broker, two hosts, a client.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::kind::{Kind, Timing};
use crate::record::{FOLDER, HOST, SERVICE};
use crate::{Broker, Network, Process, READY_LIMIT, Seen, Supervisor, command, free_endpoint};

/// The hosts of workers.
pub(super) const HOSTS: [&str; 2] = ["a", "b"];
/// Workers of a host, besides the one for long tasks where there are such.
const WORKERS: usize = 2;
/// Tasks that a client keeps under way.
const WINDOW: usize = 160;
/// Long ones among them: one a host.
const LONG_WINDOW: usize = 2;

/// Supervisors of one host: one for the short tasks, one for the long ones where there are such.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: &'static str,
    pub(super) supervisors: Vec<Supervisor>,
}

impl Host {
    /// The workers for short tasks.
    pub(super) fn workers(&self) -> Vec<Seen> {
        self.supervisors[0].workers()
    }
}

/// The mesh. What is above goes first when it is dropped.
#[derive(Debug)]
pub(super) struct Rig {
    kind: Kind,
    timing: Timing,
    folder: PathBuf,
    pub(super) client: Process,
    /// The client's number.
    pub(super) client_number: u32,
    pub(super) hosts: Vec<Host>,
    pub(super) broker: Broker,
    ends: Ends,
}

/// How the processes reach each other.
#[derive(Debug)]
struct Ends {
    /// Where the client connects.
    frontend: String,
    network: Option<Network>,
}

impl Ends {
    fn command(&self, host: &str, program: &str, arguments: &[OsString]) -> Command {
        match &self.network {
            Some(network) => network.command(host, program, arguments),
            None => command(program, arguments),
        }
    }

    fn backend(&self, host: &str, broker: &Broker) -> String {
        match &self.network {
            Some(network) => format!("tcp://{}:5556", network.hub_address(host)),
            None => broker.backend.clone(),
        }
    }
}

impl Rig {
    /// Starts everything; the records come into `folder`.
    pub(super) fn start(kind: Kind, timing: &Timing, folder: &Path) -> Self {
        fs::create_dir_all(folder.join("locks")).expect("the run's folder");
        let config = folder.join("broker.toml");
        fs::write(&config, &timing.broker_config).expect("the run's folder");
        let mut flags: Vec<&str> = timing.broker_flags.iter().map(String::as_str).collect();
        flags.extend(["--config", config.to_str().expect("UTF-8")]);
        let (ends, broker) = match kind.needs_network() {
            true => in_network(kind, &flags),
            false => {
                let broker = Broker::start_at(&free_endpoint(), &free_endpoint(), &flags);
                (Ends { frontend: broker.frontend.clone(), network: None }, broker)
            }
        };
        let (timing, folder) = (timing.clone(), folder.to_owned());
        let start = |name| start_host(kind, &timing, &folder, &ends, &broker, name);
        let hosts = HOSTS.map(start).into();
        let client = start_client(kind, &timing, &folder, &ends, 0);
        Self { kind, timing, folder, client, client_number: 0, hosts, broker, ends }
    }

    /// Starts a host's supervisors in the place of those that it had.
    pub(super) fn restart_host(&mut self, host: usize) {
        let name = self.hosts[host].name;
        let Self { kind, timing, folder, ends, broker, .. } = self;
        self.hosts[host] = start_host(*kind, timing, folder, ends, broker, name);
    }

    /// Starts another client.
    pub(super) fn restart_client(&mut self) {
        self.client_number += 1;
        let Self { kind, timing, folder, ends, client_number, .. } = self;
        self.client = start_client(*kind, timing, folder, ends, *client_number);
    }

    /// Pulls a host's cable, or plugs it in.
    pub(super) fn set_cable(&self, host: usize, is_plugged: bool) {
        let network = self.ends.network.as_ref().expect("this kind has a network");
        network.set_cable(&host_name(self.kind, HOSTS[host]), is_plugged);
    }

    /// Writes what the processes have said beside the records.
    pub(super) fn save_logs(&self) {
        let save = |name: String, process: &Process| {
            let _ = fs::write(self.folder.join(name), process.log());
        };
        save("log-broker".into(), &self.broker.process);
        save(format!("log-client-{}", self.client_number), &self.client);
        for host in &self.hosts {
            for (number, supervisor) in host.supervisors.iter().enumerate() {
                save(format!("log-host-{}-{number}", host.name), &supervisor.process);
            }
        }
    }
}

/// Several networks live side by side, so that each has names of its own.
fn host_name(kind: Kind, name: &str) -> String {
    format!("{kind}-{name}")
}

fn in_network(kind: Kind, flags: &[&str]) -> (Ends, Broker) {
    let names = ["broker", HOSTS[0], HOSTS[1], "desk"].map(|name| host_name(kind, name));
    let network = Network::star(&names.each_ref().map(String::as_str));
    if kind == Kind::SlowLink {
        names[1..].iter().for_each(|name| network.slow_cable(name, "8mbit"));
    }
    let frontend = format!("tcp://{}:5555", network.hub_address(&names[3]));
    let mut command = network.command(&names[0], "pinmesh-broker", flags);
    // The workers' hosts have a cable each, so that it listens on all of them.
    command.args(["--insecure", "--frontend", &frontend, "--backend", "tcp://0.0.0.0:5556"]);
    command.args(["--http", "off"]);
    let broker = Broker::run(command);
    (Ends { frontend, network: Some(network) }, broker)
}

fn start_host(
    kind: Kind,
    timing: &Timing,
    folder: &Path,
    ends: &Ends,
    broker: &Broker,
    name: &'static str,
) -> Host {
    let at = host_name(kind, name);
    let supervisor = |(service, workers)| {
        let mut arguments: Vec<OsString> =
            vec!["--backend".into(), ends.backend(&at, broker).into()];
        arguments.extend(timing.worker_flags.iter().map(Into::into));
        let mut command = ends.command(&at, "pinmesh-chaos-worker", &arguments);
        command.env(FOLDER, folder).env(HOST, name).env(SERVICE, service);
        Supervisor::run(command, workers)
    };
    let mut services = vec![("work", WORKERS)];
    if kind.ends_leases() {
        services.push(("long", 1));
    }
    Host { name, supervisors: services.into_iter().map(supervisor).collect() }
}

fn start_client(kind: Kind, timing: &Timing, folder: &Path, ends: &Ends, number: u32) -> Process {
    let at = host_name(kind, "desk");
    let mut arguments: Vec<OsString> = vec!["--broker".into(), ends.frontend.clone().into()];
    let mut flag = |name: &str, value: &dyn std::fmt::Display| {
        arguments.push(format!("--{name}={value}").into());
    };
    flag("folder", &folder.display());
    flag("number", &number);
    match kind {
        Kind::SlowLink => {
            flag("window", &1);
            flag("bytes", &timing.slow_bytes);
        }
        _ => flag("window", &WINDOW),
    }
    if kind.ends_leases() {
        flag("long-window", &LONG_WINDOW);
        flag("long-ms", &timing.long().as_millis());
    }
    let mut client = Process::start(ends.command(&at, "pinmesh-chaos-client", &arguments));
    let line = client.first_line(READY_LIMIT);
    assert_eq!(line, "pinmesh-chaos-client ready");
    client
}
