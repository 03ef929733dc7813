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
        let number = self.hosts.iter().position(|(known, _)| known == host);
        format!("10.213.{}.1", number.expect("a host of this network"))
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
    let output = Command::new("ip").args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("ip: {error}; install it: apt-get install -y iproute2 (scripts/test.sh does)")
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "ip {}: {stderr}; network namespaces need CAP_SYS_ADMIN and CAP_NET_ADMIN",
        arguments.join(" ")
    );
}

fn remove_left_behind() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        if owner.is_some_and(|pid| Seen::now(pid).is_none()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}
