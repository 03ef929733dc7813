//! `[services.NAME]`: what single services may take up.

use std::fmt::Write as _;
use std::time::Duration;

use pinmesh_core::{Rate, ServiceLimits, Span};
use pinmesh_protocol::selector::Selector;
use toml::de::{DeTable, DeValue};

use super::report::Problem;
use super::settings::{DAY, MS, TRIES_MAX};
use super::value::{MEMORY_MAX, Value, show_bytes, show_span};
use super::{ConfigLoader, nearest, understand};

/// The most tasks that any limit of a count may be set to.
pub(super) const COUNT_MAX: u32 = 100_000_000;
const BURST_MAX: u32 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const UNITS: [(&str, u64); 3] =
    [("s", SECOND_NS), ("min", 60 * SECOND_NS), ("h", 3_600 * SECOND_NS)];
/// What a rate without a burst may send at once: as much as comes in so long.
const USUAL_BURST_NS: u64 = SECOND_NS / 10;

const KEYS: [&str; 9] = [
    "pending_max",
    "in_flight_max",
    "bytes_max",
    "rate",
    "burst",
    "max_runtime",
    "tries_max",
    "backoff",
    "backoff_max",
];

/// A service's table while it is read.
struct Draft {
    limits: ServiceLimits,
    interval: Option<u64>,
    burst: Option<u32>,
}

impl Draft {
    fn set(&mut self, key: &str, value: Value<'_>) -> Result<(), String> {
        let limits = &mut self.limits;
        let tasks = &mut limits.task_defaults;
        match key {
            "max_runtime" => value.span(MS, 30 * DAY).map(|most| tasks.max_runtime = Some(most)),
            "tries_max" => value.count_u32(1, TRIES_MAX).map(|tries| tasks.tries_max = Some(tries)),
            "backoff" => value.span(Duration::ZERO, DAY).map(|wait| tasks.backoff = Some(wait)),
            "backoff_max" => {
                value.span(Duration::ZERO, 30 * DAY).map(|wait| tasks.backoff_max = Some(wait))
            }
            "pending_max" => value.count_u32(1, COUNT_MAX).map(|count| limits.pending_max = count),
            "in_flight_max" => {
                value.count_u32(1, COUNT_MAX).map(|count| limits.in_flight_max = count)
            }
            "bytes_max" => value.bytes(1_024, MEMORY_MAX).map(|bytes| limits.bytes_max = bytes),
            "rate" => interval(value.text()?).map(|interval| self.interval = Some(interval)),
            _ => value.count_u32(1, BURST_MAX).map(|burst| self.burst = Some(burst)),
        }
    }

    /// The limits, once every key was read.
    fn finish(self) -> Result<ServiceLimits, String> {
        let rate = match (self.interval, self.burst) {
            (None, None) => None,
            (None, Some(_)) => return Err("burst needs rate beside it".to_owned()),
            (Some(interval), burst) => {
                let usual = (USUAL_BURST_NS / interval).clamp(1, u64::from(BURST_MAX)) as u32;
                Some(Rate { interval: Span(interval), burst: burst.unwrap_or(usual) })
            }
        };
        Ok(ServiceLimits { rate, ..self.limits })
    }
}

/// Nanoseconds from one to the next of `"100/s"`.
fn interval(text: &str) -> Result<u64, String> {
    let wrong = || {
        "must be a number of tasks in a time, such as \"100/s\", \"30/min\" or \"5/h\"".to_owned()
    };
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let count: u64 = count.trim().parse().map_err(|_| wrong())?;
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
    match count {
        0 => Err("0 does not mean unlimited: leave rate out, or pause the service".to_owned()),
        1..=1_000_000_000 => Ok((unit / count).max(1)),
        _ => Err("must be at most 1000000000 in a time".to_owned()),
    }
}

fn show_rate(rate: &Rate) -> String {
    let interval = rate.interval.0;
    let exact = UNITS.iter().find(|(_, unit)| interval <= *unit && unit % interval == 0);
    match exact {
        Some((name, unit)) => format!("{}/{name}", unit / interval),
        // The closest that can be written.
        None => {
            let (name, unit) =
                UNITS.iter().find(|(_, unit)| interval <= *unit).unwrap_or(&UNITS[2]);
            format!("{}/{name}", (unit / interval).max(1))
        }
    }
}

impl ConfigLoader {
    /// Every `[services.NAME]`, on top of `[defaults]`.
    pub(super) fn services(&mut self, services: &DeTable<'_>) {
        for (name, table) in services {
            let (service, span) = (name.get_ref(), name.span());
            let problem = match (Selector::parse(service), table.get_ref()) {
                (Err(error), _) => Some(format!("[services.{service:?}]: {error}")),
                (Ok(_), DeValue::Table(table)) => {
                    self.service(service, table);
                    None
                }
                (Ok(_), other) => Some(format!(
                    "services.{service} must be a table, [services.{service}]; is a {}",
                    other.type_str()
                )),
            };
            if let Some(message) = problem {
                self.problems.push(Problem { span: Some(span), message });
            }
        }
    }

    fn service(&mut self, service: &str, table: &DeTable<'_>) {
        let limits = self.config.core.service_limits;
        let mut draft = Draft { limits, interval: None, burst: None };
        let mut last = None;
        for (key, value) in table {
            let (name, span) = (key.get_ref().as_ref(), value.span());
            let problem = if KEYS.contains(&name) {
                let taken = understand(value.get_ref()).and_then(|value| draft.set(name, value));
                taken.err().map(|error| {
                    let shown = self.source.get(span.clone()).unwrap_or_default();
                    (span.clone(), format!("[services.{service}] {name} = {shown}: {error}"))
                })
            } else {
                let hint = match nearest(name, &KEYS) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("there are {}", KEYS.join(", ")),
                };
                let message = format!("unknown key `{name}` in [services.{service}]; {hint}");
                Some((key.span(), message))
            };
            if let Some((span, message)) = problem {
                self.problems.push(Problem { span: Some(span), message });
            }
            last = Some(span);
        }
        match draft.finish() {
            Ok(limits) => {
                self.config.core.own_service_limits.insert(service.to_owned(), limits);
            }
            Err(error) => {
                let message = format!("[services.{service}] {error}");
                self.problems.push(Problem { span: last, message });
            }
        }
    }
}

/// `[services.NAME]` as a file has it.
pub(super) fn show(text: &mut String, name: &str, limits: &ServiceLimits) {
    let _ = writeln!(text, "\n[services.{name:?}]");
    let _ = writeln!(text, "pending_max = {}", limits.pending_max);
    let _ = writeln!(text, "in_flight_max = {}", limits.in_flight_max);
    let _ = writeln!(text, "bytes_max = \"{}\"", show_bytes(limits.bytes_max));
    if let Some(rate) = &limits.rate {
        let _ = writeln!(text, "rate = \"{}\"\nburst = {}", show_rate(rate), rate.burst);
    }
    let tasks = &limits.task_defaults;
    if let Some(tries) = tasks.tries_max {
        let _ = writeln!(text, "tries_max = {tries}");
    }
    let spans = [
        ("max_runtime", tasks.max_runtime),
        ("backoff", tasks.backoff),
        ("backoff_max", tasks.backoff_max),
    ];
    for (key, span) in spans.into_iter().filter_map(|(key, span)| Some((key, span?))) {
        let _ = writeln!(text, "{key} = \"{}\"", show_span(span));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Result<super::super::Config, String> {
        let mut loader = ConfigLoader::new();
        loader.text("broker.toml", text);
        loader.finish().map_err(|error| error.to_string())
    }

    #[test]
    fn a_service_has_the_defaults_and_its_own_limits() {
        let text = "[services.render]\nin_flight_max = 4\nrate = \"100/s\"\n\
                    max_runtime = \"1m\"\ntries_max = 1\nbackoff = \"0s\"\n\
                    [services.\"a b\"]\nbytes_max = \"1MiB\"\nrate = \"30/min\"\nburst = 7\n\
                    [defaults]\npending_max = 50\n";
        let config = loaded(text).expect("a good file");
        let own = &config.core.own_service_limits;
        let render = own["render"];
        assert_eq!((render.pending_max, render.in_flight_max), (50, 4));
        assert_eq!(render.rate, Some(Rate { interval: Span(10_000_000), burst: 10 }));
        let tasks = render.task_defaults;
        assert_eq!((tasks.max_runtime, tasks.tries_max), (Some(Span(60_000_000_000)), Some(1)));
        assert_eq!((tasks.backoff, tasks.backoff_max), (Some(Span(0)), None));
        let other = own["a b"];
        assert_eq!((other.bytes_max, other.pending_max), (1 << 20, 50));
        assert_eq!(other.rate, Some(Rate { interval: Span(2_000_000_000), burst: 7 }));
        let again = loaded(&config.to_toml()).expect("what is shown reads back");
        assert_eq!(&again.core.own_service_limits, own);
        assert_eq!(again.core.service_limits, config.core.service_limits);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_the_remedy() {
        for (text, told) in [
            (
                "[services.x]\npending = 1\n",
                "broker.toml:2:1: unknown key `pending` in [services.x]; did you mean `pending_max`?",
            ),
            ("[services.x]\nin_flight_max = 0\n", "0 does not mean unlimited"),
            ("[services.x]\nrate = \"0/s\"\n", "0 does not mean unlimited: leave rate out"),
            ("[services.x]\nrate = \"fast\"\n", "\"100/s\""),
            ("[services.x]\nrate = \"1/day\"\n", "\"100/s\""),
            ("[services.x]\nburst = 3\n", "burst needs rate"),
            ("[services]\nx = 3\n", "must be a table, [services.x]"),
            ("services = 3\n", "must be a table"),
            (
                "[limits]\nservices = 2\n[services.a]\n[services.b]\n[services.c]\n",
                "[limits] services",
            ),
        ] {
            let error = loaded(text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
