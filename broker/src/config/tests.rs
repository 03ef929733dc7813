//! Errors of the configuration, and what reads back.

use super::*;

fn errors(text: &str) -> String {
    let mut loader = ConfigLoader::new();
    loader.text("b.toml", text);
    loader.finish().unwrap_err().to_string()
}

#[test]
fn the_defaults_are_right_and_read_back_the_same() {
    let config = ConfigLoader::new().finish().unwrap();
    let mut loader = ConfigLoader::new();
    loader.text("b.toml", &config.to_toml());
    assert_eq!(format!("{:?}", loader.finish().unwrap()), format!("{config:?}"));
}

#[test]
fn every_setting_reads_back_what_it_shows() {
    let text = "[listen]\nfrontend = \"ipc:///run/p/f\"\ninsecure = true\n[cpu]\npin = 0\n\
                io = \"0-1\"\n[log]\nlatency = \"/tmp/a \\\"b\\\".hlog\"\n[limits]\n\
                memory = 2_147_483_648\npayload = \"3MB\"\n";
    let mut loader = ConfigLoader::new();
    loader.text("b.toml", text);
    let config = loader.finish().unwrap();
    assert_eq!(config.core.memory_bytes_max, 2 << 30);
    assert_eq!(config.core.payload_bytes_max, 3_000_000);
    let mut loader = ConfigLoader::new();
    loader.text("b.toml", &config.to_toml());
    assert_eq!(format!("{:?}", loader.finish().unwrap()), format!("{config:?}"));
}

#[test]
fn a_wrong_value_is_shown_with_its_place_and_the_remedy() {
    assert_eq!(
        errors("[sessions]\n  heartbeat = 5 # s\n"),
        "b.toml:2:15: [sessions] heartbeat = 5: must be a duration with its unit, such as \
         \"10s\" or \"250ms\", is an integer\n  |\n2 |   heartbeat = 5 # s\n  |               ^"
    );
}

#[test]
fn every_problem_is_reported_at_once_in_the_order_of_the_file() {
    let text = "[limits]\nmemory = 0\n[sessions]\nleese = \"9s\"\nliveness = 0\n[cpus]\n";
    let errors = errors(text);
    let lines: Vec<_> = errors.lines().filter(|line| line.starts_with("b.toml")).collect();
    assert_eq!(lines.len(), 4, "{errors}");
    assert!(lines[0].starts_with("b.toml:2:10: [limits] memory = 0: 0 does not mean"));
    assert!(lines[1].ends_with("unknown key `leese` in [sessions]; did you mean `lease`?"));
    assert!(lines[2].starts_with("b.toml:5:12: [sessions] liveness = 0: 0 does not mean"));
    assert!(lines[3].ends_with("unknown section [cpus]; did you mean [cpu]?"));
}

#[test]
fn settings_that_do_not_fit_together_are_refused_where_they_stand() {
    let error = errors("[sessions]\nlease = \"2s\"\n");
    assert!(error.starts_with("b.toml:2:9: [sessions] lease = \"2s\": must be longer than "));
    let error = errors("[sessions]\nheartbeat = \"5s\"\n");
    assert!(error.starts_with("[sessions] lease (default) = \"10s\": must be longer"));
    let error = errors("[listen]\nbackend = \"tcp://127.0.0.1:5555\"\n");
    assert!(error.contains("is the frontend too"), "{error}");
    let error = errors("[listen]\nbackend = \"tcp://*:5556\"\n");
    assert!(error.contains("b.toml:2:11") && error.contains("insecure = true"), "{error}");
}

#[test]
fn a_key_in_the_wrong_section_is_sent_to_the_right_one() {
    assert!(errors("lease = \"9s\"\n").contains("belongs into [sessions]"));
    assert!(errors("[limits]\nlease = \"9s\"\n").contains("belongs into [sessions]"));
    assert!(errors("[sessions]\nqqq = 1\n").contains("there are heartbeat, liveness, lease"));
}

#[test]
fn text_that_is_not_toml_is_an_error_with_its_place() {
    let error = errors("[sessions\nlease = \"9s\"\n");
    assert!(error.starts_with("b.toml:1:"), "{error}");
    let error = errors("[sessions]\nlease = \"9s\"\nlease = \"9s\"\n");
    assert!(error.starts_with("b.toml:3:"), "{error}");
    let error = errors("[sessions]\nlease = \"\u{e4}\u{e4}\" \u{0}\n");
    assert!(error.starts_with("b.toml:2:"), "{error}");
}

#[test]
fn a_flag_comes_before_the_file_and_is_named_in_its_error() {
    let mut loader = ConfigLoader::new();
    loader.text("b.toml", "[sessions]\nlease = \"9s\"\n");
    loader.flag("--lease", "sessions", "lease", "20s");
    assert_eq!(loader.finish().unwrap().core.lease.0, 20_000_000_000);
    let mut loader = ConfigLoader::new();
    loader.flag("--lease", "sessions", "lease", "2s");
    let error = loader.finish().unwrap_err().to_string();
    assert!(error.starts_with("--lease \"2s\": must be longer"), "{error}");
}

/// A folder with a broker's key and an empty list, and the lines that name them.
fn key_files() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let (key, list) = (folder.path().join("b.key"), folder.path().join("authorized_keys"));
    pinmesh_transport::KeyPair::generate().unwrap().save(&key).unwrap();
    std::fs::write(&list, "# nobody yet\n").unwrap();
    let text = format!("[security]\nkey = {key:?}\nauthorized_keys = {list:?}\n");
    (folder, text)
}

#[test]
fn with_keys_other_hosts_may_reach_the_endpoints_and_without_one_of_the_files_not() {
    let listen = "[listen]\nbackend = \"tcp://*:5556\"\n";
    let (folder, keys) = key_files();
    let mut loader = ConfigLoader::new();
    loader.text("b.toml", &format!("{listen}{keys}"));
    let config = loader.finish().unwrap();
    assert_eq!(config.key_files().unwrap().key, folder.path().join("b.key"));
    let mut loader = ConfigLoader::new();
    loader.text("b.toml", &config.to_toml());
    assert_eq!(format!("{:?}", loader.finish().unwrap()), format!("{config:?}"));
    let without = |line: &str| {
        keys.lines().filter(|text| !text.starts_with(line)).collect::<Vec<_>>().join("\n")
    };
    let error = errors(&without("authorized_keys"));
    assert!(error.contains("b.toml:2:7: [security] key") && error.contains("--authorized-keys"));
    let error = errors(&without("key"));
    assert!(error.contains("[security] authorized_keys") && error.contains("needs key (--key)"));
    let error = errors(&format!("[listen]\ninsecure = true\n{keys}"));
    assert!(error.contains("insecure = true: contradicts the keys"), "{error}");
}

#[test]
fn key_files_that_are_wrong_are_told_with_their_place_and_the_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, keys) = key_files();
    let mode = |file: &str, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder.path().join(file), permissions).unwrap();
    };
    mode("b.key", 0o640);
    std::fs::write(folder.path().join("authorized_keys"), "a b c\n").unwrap();
    let error = errors(&keys);
    assert!(error.contains("b.toml:2:7: ") && error.contains("chmod 600"), "{error}");
    assert!(error.contains("b.toml:3:19: ") && error.contains("line 1"), "{error}");
    mode("b.key", 0o600);
    mode("authorized_keys", 0o666);
    let error = errors(&keys);
    assert!(error.contains("chmod 644") && !error.contains("chmod 600"), "{error}");
    let error = errors("[security]\nkey = \"\"\nauthorized_keys = 1\n");
    assert!(error.contains("leave the key out for no keys"), "{error}");
}
