//! Hosts of their own, as network namespaces: one in the middle, the others joined to it by a
//! cable each. Nothing leaves them.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use crate::process::clean_command;
use crate::{Seen, binary};

/// How the names of our namespaces begin; the number of the test's process follows.
const PREFIX: &str = "pinmesh-tests-";

/// Namespaces that are gone when this is dropped. Those that a killed test has left are removed by
/// the next one.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<(String, String)>,
}

impl Network {
    /// Makes the hosts. The first is the one in the middle; it has an address on the cable to each of
    /// the others.
    ///
    /// # Panics
    /// This needs root and `ip` of iproute2, and says so.
    #[track_caller]
    pub fn star(hosts: &[&str]) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        assert!(
            is_root,
            "network namespaces need root; run: sudo -E env \"PATH=$PATH\" cargo test -p \
             pinmesh-tests --test namespaces"
        );
        remove_left_behind();
        let pid = std::process::id();
        let mut network = Self { hosts: Vec::new() };
        for host in hosts {
            let name = format!("{PREFIX}{pid}-{host}");
            ip(&["netns", "add", &name]);
            network.hosts.push(((*host).to_owned(), name));
            let (_, name) = &network.hosts[network.hosts.len() - 1];
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        let (_, hub) = &network.hosts[0];
        for (number, (_, name)) in network.hosts.iter().enumerate().skip(1) {
            let (here, there) = (format!("cable{number}"), "cable");
            ip(&[
                "link", "add", &here, "netns", hub, "type", "veth", "peer", "name", there, "netns",
                name,
            ]);
            for (name, end, last) in [(hub, here.as_str(), 1), (name, there, 2)] {
                ip(&[
                    "-n",
                    name,
                    "address",
                    "add",
                    &format!("10.213.{number}.{last}/24"),
                    "dev",
                    end,
                ]);
                ip(&["-n", name, "link", "set", end, "up"]);
            }
        }
        network
    }

    /// The address of the host in the middle, as this host sees it.
    ///
    /// # Panics
    /// There is no such host.
    #[track_caller]
    pub fn hub_address(&self, host: &str) -> String {
        format!("10.213.{}.1", self.number(host))
    }

    /// Pulls the cable of a host, or plugs it in again.
    ///
    /// # Panics
    /// There is no such host.
    #[track_caller]
    pub fn set_cable(&self, host: &str, is_plugged: bool) {
        let state = if is_plugged { "up" } else { "down" };
        let (hub, cable) = (&self.hosts[0].1, format!("cable{}", self.number(host)));
        ip(&["-n", hub, "link", "set", &cable, state]);
    }

    /// Slows the cable of a host down to this rate, each direction for itself: `8mbit`.
    ///
    /// # Panics
    /// There is no such host, or `tc` refuses.
    #[track_caller]
    pub fn slow_cable(&self, host: &str, rate: &str) {
        let number = self.number(host);
        let near = (self.hosts[0].1.as_str(), format!("cable{number}"));
        for (name, cable) in [near, (self.hosts[number].1.as_str(), "cable".to_owned())] {
            let queue = ["tbf", "rate", rate, "burst", "32kb", "latency", "400ms"];
            let mut command = Command::new("tc");
            command.args(["-n", name, "qdisc", "add", "dev", &cable, "root"]).args(queue);
            succeed(command, "iproute2");
        }
    }

    fn number(&self, host: &str) -> usize {
        let number = self.hosts.iter().position(|(known, _)| known == host);
        number.expect("a host of this network")
    }

    /// One of our programs, to be started on a host.
    ///
    /// # Panics
    /// There is no such host.
    #[track_caller]
    pub fn command(
        &self,
        host: &str,
        program: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Command {
        let name = self.hosts.iter().find(|(known, _)| known == host);
        let (_, name) = name.expect("a host of this network");
        // Not `ip netns exec`, which mounts a /sys of its own and hides the cgroups.
        let mut command = clean_command("nsenter");
        command.arg(format!("--net=/run/netns/{name}")).arg("--");
        command.arg(binary(program)).args(arguments);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (_, name) in &self.hosts {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    command.args(arguments);
    succeed(command, "iproute2");
}

/// Runs a command of the system to its end.
#[track_caller]
fn succeed(mut command: Command, package: &str) {
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "{command:?}: {error}; install it: apt-get install -y {package} (scripts/test.sh does)"
        )
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {stderr}; network namespaces need CAP_SYS_ADMIN and CAP_NET_ADMIN"
    );
}

fn remove_left_behind() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        if owner.is_some_and(|pid| Seen::now(pid).is_none()) {
            // Two networks of a test may find the same one.
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}
