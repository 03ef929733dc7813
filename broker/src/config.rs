//! The broker's configuration: defaults, then a TOML file, then flags; each error with its place.
//!
//! ```
//! use pinmesh_broker::config::ConfigLoader;
//!
//! let mut loader = ConfigLoader::new();
//! loader.text("broker.toml", "[sessions]\nleese = \"10s\"\n");
//! let error = loader.finish().unwrap_err().to_string();
//! assert!(error.starts_with("broker.toml:2:1: unknown key `leese` in [sessions]"));
//! assert!(error.contains("did you mean `lease`"));
//! ```

mod http;
mod report;
mod services;
mod settings;
mod together;
mod value;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pinmesh_core::CoreConfig;
use pinmesh_host::{CpuId, CpuSelection};
use pinmesh_transport::Endpoint;
use toml::de::{DeTable, DeValue};

pub use http::HttpListen;
pub use report::{ConfigError, Problem};
use settings::{SETTINGS, Setting};
use value::Value;
pub(crate) use value::span_of;

/// The longest configuration file, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Everything that a broker is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub frontend: Endpoint,
    /// Where workers and supervisors connect.
    pub backend: Endpoint,
    /// Where the admin API listens.
    pub http: HttpListen,
    /// Bind beyond this host without keys.
    pub insecure: bool,
    /// File of the broker's secret key; `None`: no keys, as `authorized_keys`.
    pub key: Option<PathBuf>,
    /// File of the public keys that may connect.
    pub authorized_keys: Option<PathBuf>,
    /// The CPU of the event loop; `None`: not pinned.
    pub cpu: Option<CpuId>,
    /// The CPUs of libzmq's IO threads; `None`: the event loop's.
    pub io_cpus: Option<CpuSelection>,
    /// libzmq's IO threads.
    pub io_threads: u32,
    /// How long the event loop stays awake before it sleeps.
    pub spin: Duration,
    /// How long a drain may last.
    pub drain_time: Duration,
    /// The stage histograms of every second; `None`: not written.
    pub latency_log: Option<PathBuf>,
    /// What the machine is told. Its epoch is drawn at the start, not configured.
    pub core: CoreConfig,
}

/// The files of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// The broker's secret key.
    pub key: PathBuf,
    /// The public keys that may connect.
    pub authorized_keys: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| Endpoint::tcp(([127, 0, 0, 1], port).into());
        Self {
            frontend: local(5555),
            backend: local(5556),
            http: HttpListen::default(),
            insecure: false,
            key: None,
            authorized_keys: None,
            cpu: None,
            io_cpus: None,
            io_threads: 1,
            spin: Duration::ZERO,
            drain_time: Duration::from_secs(30),
            latency_log: None,
            core: CoreConfig::default(),
        }
    }
}

impl Config {
    /// The files of keys, if there are keys. A loader gives both or neither.
    #[must_use]
    pub fn key_files(&self) -> Option<KeyFiles> {
        let (key, authorized_keys) = (self.key.clone()?, self.authorized_keys.clone()?);
        Some(KeyFiles { key, authorized_keys })
    }

    /// The configuration as a file that reads back the same, with a comment for each setting.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for setting in SETTINGS {
            if setting.section != section {
                section = setting.section;
                let gap = if text.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}[{section}]");
            }
            let _ = writeln!(text, "# {}", setting.doc);
            let _ = match (setting.show)(self) {
                Some(value) => writeln!(text, "{} = {value}", setting.key),
                None => writeln!(text, "# {} =", setting.key),
            };
        }
        for (name, limits) in &self.core.own_service_limits {
            services::show(&mut text, name, limits);
        }
        text
    }
}

/// Where a value came from, for problems that are seen only once all values are there.
enum Origin {
    File(Range<usize>),
    Flag(&'static str),
}

/// Builds a [`Config`] and gathers every problem on the way.
pub struct ConfigLoader {
    config: Config,
    path: Option<PathBuf>,
    source: String,
    origins: HashMap<(&'static str, &'static str), Origin>,
    problems: Vec<Problem>,
}

impl Default for ConfigLoader {
    fn default() -> Self {
        Self::new()
    }
}

impl ConfigLoader {
    /// All defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            config: Config::default(),
            path: None,
            source: String::new(),
            origins: HashMap::new(),
            problems: Vec::new(),
        }
    }

    /// Reads a file.
    pub fn file(&mut self, path: &Path) {
        let read = std::fs::metadata(path).and_then(|metadata| match metadata.len() {
            bytes if bytes > FILE_BYTES_MAX => Err(std::io::Error::other(format!(
                "has {bytes} bytes, a configuration may have {FILE_BYTES_MAX}"
            ))),
            _ => std::fs::read_to_string(path),
        });
        match read {
            Ok(text) => self.text(path, &text),
            Err(error) => {
                let remedy = "name a readable TOML file, or leave --config out for the defaults";
                let message = format!("--config {}: {error}; {remedy}", path.display());
                self.problems.push(Problem { span: None, message });
            }
        }
    }

    /// Reads the text of a file.
    pub fn text(&mut self, path: impl Into<PathBuf>, text: &str) {
        self.path = Some(path.into());
        self.source = text.to_owned();
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let message = format!("not TOML: {}", error.message());
            self.problems.push(Problem { span: error.span(), message });
        }
        for (name, table) in document.get_ref() {
            if name.get_ref() == "services" {
                continue;
            }
            let Some(section) =
                SETTINGS.iter().map(|setting| setting.section).find(|s| *s == name.get_ref())
            else {
                let message = unknown_section(name.get_ref());
                self.problems.push(Problem { span: Some(name.span()), message });
                continue;
            };
            match table.get_ref() {
                DeValue::Table(table) => self.section(section, table),
                other => {
                    let kind = other.type_str();
                    let message = format!("`{section}` must be a table, [{section}]; is a {kind}");
                    self.problems.push(Problem { span: Some(table.span()), message });
                }
            }
        }
        // Behind [defaults], wherever they stand.
        match document.get_ref().get("services").map(|table| (table.get_ref(), table.span())) {
            None => {}
            Some((DeValue::Table(services), _)) => self.services(services),
            Some((other, span)) => {
                let kind = other.type_str();
                let message = format!("`services` must be a table, [services.NAME]; is a {kind}");
                self.problems.push(Problem { span: Some(span), message });
            }
        }
    }

    fn section(&mut self, section: &'static str, table: &DeTable<'_>) {
        for (key, value) in table {
            let (name, span) = (key.get_ref(), value.span());
            let Some(setting) = find(section, name) else {
                let message = unknown_key(section, name);
                self.problems.push(Problem { span: Some(key.span()), message });
                continue;
            };
            let taken = match understand(value.get_ref()) {
                Ok(value) => (setting.set)(&mut self.config, value),
                Err(error) => Err(error),
            };
            match taken {
                Ok(()) => {
                    self.origins.insert((section, setting.key), Origin::File(span));
                }
                Err(error) => {
                    let shown = self.source.get(span.clone()).unwrap_or_default();
                    let shown = shown.lines().next().unwrap_or_default();
                    let message = format!("[{section}] {} = {shown}: {error}", setting.key);
                    self.problems.push(Problem { span: Some(span), message });
                }
            }
        }
    }

    /// Takes a flag's value for a setting, in place of what the file says.
    ///
    /// # Panics
    /// If there is no such setting: the flags are this crate's own.
    pub fn flag(&mut self, flag: &'static str, section: &str, key: &str, value: &str) {
        let setting = find(section, key);
        assert!(setting.is_some(), "{flag} names [{section}] {key}, which is no setting");
        let Some(setting) = setting else { return };
        match (setting.set)(&mut self.config, Value::Flag(value)) {
            Ok(()) => {
                self.origins.insert((setting.section, setting.key), Origin::Flag(flag));
            }
            Err(error) => {
                let message = format!("{flag} {value}: {error}");
                self.problems.push(Problem { span: None, message });
            }
        }
    }

    /// The configuration, if nothing is wrong with it.
    ///
    /// # Errors
    /// Every problem that was found, in the order of the file, flags last.
    pub fn finish(mut self) -> Result<Config, ConfigError> {
        if self.problems.is_empty() {
            self.check_together();
        }
        if self.problems.is_empty() {
            return Ok(self.config);
        }
        self.problems
            .sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
        Err(ConfigError { path: self.path, source: self.source, problems: self.problems })
    }

    fn wrong(&mut self, section: &'static str, key: &'static str, reason: &str) {
        let value = find(section, key).and_then(|setting| (setting.show)(&self.config));
        let value = value.unwrap_or_default();
        let (span, name) = match self.origins.get(&(section, key)) {
            Some(Origin::File(span)) => (Some(span.clone()), format!("[{section}] {key} =")),
            Some(Origin::Flag(flag)) => (None, (*flag).to_owned()),
            None => (None, format!("[{section}] {key} (default) =")),
        };
        self.problems.push(Problem { span, message: format!("{name} {value}: {reason}") });
    }
}

fn find(section: &str, key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.section == section && setting.key == key)
}

fn understand<'a>(value: &'a DeValue<'_>) -> Result<Value<'a>, String> {
    Ok(match value {
        DeValue::String(text) => Value::Text(text),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Integer(value) => Value::Integer(
            i64::from_str_radix(value.as_str(), value.radix())
                .map_err(|_| "is out of range for a whole number".to_owned())?,
        ),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(_) => Value::Other("an array"),
        DeValue::Table(_) => Value::Other("a table"),
    })
}

fn unknown_section(name: &str) -> String {
    let mut sections: Vec<_> = SETTINGS.iter().map(|setting| setting.section).collect();
    sections.dedup();
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == name) {
        return format!("`{name}` stands in no section; it belongs into [{}]", setting.section);
    }
    let hint = match nearest(name, &sections) {
        Some(section) => format!("did you mean [{section}]?"),
        None => format!("there are [{}], [services.NAME]", sections.join("], [")),
    };
    format!("unknown section [{name}]; {hint}")
}

fn unknown_key(section: &str, name: &str) -> String {
    let keys: Vec<_> = SETTINGS
        .iter()
        .filter(|setting| setting.section == section)
        .map(|setting| setting.key)
        .collect();
    let elsewhere = SETTINGS.iter().find(|setting| setting.key == name);
    let hint = match (nearest(name, &keys), elsewhere) {
        (_, Some(setting)) => format!("it belongs into [{}]", setting.section),
        (Some(key), None) => format!("did you mean `{key}`?"),
        (None, None) => format!("there are {}", keys.join(", ")),
    };
    format!("unknown key `{name}` in [{section}]; {hint}")
}

/// The name that this one is most likely a slip of.
fn nearest(name: &str, names: &[&'static str]) -> Option<&'static str> {
    let similarity = |known: &&str| strsim::jaro_winkler(name, known);
    let best = names.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(best) > 0.7).then_some(*best)
}

#[cfg(test)]
mod tests;
