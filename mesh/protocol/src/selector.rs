//! Services that require labels of their workers: `resize{gpu,numa=1}` is served by the workers that
//! offer `resize` and have the labels `gpu` and `numa=1`. It is a service of its own in every other
//! way: it has its own queue, limits and turn.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::limits::{LABEL_BYTES_MAX, LABELS_MAX, SERVICE_BYTES_MAX};

/// What a service's name says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selector<'a> {
    /// The service that a worker must offer.
    pub service: &'a str,
    /// The labels that it must have, sorted by their bytes, separated by commas; empty: none.
    labels: &'a str,
}

/// Why a name names no service, or a label is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameError {
    /// It is empty, or longer than [`SERVICE_BYTES_MAX`]; how long it is, bytes.
    Length(usize),
    /// Braces stand anywhere but in one pair at the end, or before them stands no service.
    Braces,
    /// A label between the braces is none; see [`is_label`].
    Label,
    /// The labels are not sorted by their bytes, each once.
    Order,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.remedy())
    }
}

impl core::error::Error for NameError {}

impl NameError {
    /// What is wrong, and what a name looks like.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Length(_) => "the name of a service has 1 to 128 bytes, required labels included",
            Self::Braces => {
                "braces in the name of a service hold the labels that it requires, at the end: resize{gpu,numa=1}"
            }
            Self::Label => {
                "a label has 1 to 64 bytes without braces, commas, white space and control characters: gpu, numa=1"
            }
            Self::Order => {
                "required labels are sorted by their bytes, each once: resize{gpu,numa=1}"
            }
        }
    }
}

/// Whether this is a label: 1 to [`LABEL_BYTES_MAX`] bytes without braces, commas, white space and
/// control characters.
pub fn is_label(label: &str) -> bool {
    let is_plain = |c: char| !matches!(c, '{' | '}' | ',') && !c.is_whitespace() && !c.is_control();
    (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.chars().all(is_plain)
}

impl<'a> Selector<'a> {
    /// Reads a service's name. There is one way to write each: two names that differ are two services.
    pub fn parse(name: &'a str) -> Result<Self, NameError> {
        if name.is_empty() || name.len() > SERVICE_BYTES_MAX {
            return Err(NameError::Length(name.len()));
        }
        let Some((service, rest)) = name.split_once('{') else {
            let plain = Self { service: name, labels: "" };
            return if name.contains('}') { Err(NameError::Braces) } else { Ok(plain) };
        };
        let labels = rest.strip_suffix('}').ok_or(NameError::Braces)?;
        if service.is_empty() || service.contains('}') || labels.contains(['{', '}']) {
            return Err(NameError::Braces);
        }
        if !labels.split(',').all(is_label) {
            return Err(NameError::Label);
        }
        if !labels.split(',').is_sorted_by(|left, right| left < right) {
            return Err(NameError::Order);
        }
        Ok(Self { service, labels })
    }

    /// The labels that a worker must have, sorted by their bytes.
    pub fn labels(&self) -> impl Iterator<Item = &'a str> {
        self.labels.split(',').filter(|label| !label.is_empty())
    }

    /// Whether it requires labels.
    pub const fn is_selective(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Whether a worker with these labels has all that it requires.
    pub fn is_met_by<L: AsRef<str>>(&self, labels: &[L]) -> bool {
        self.labels().all(|wanted| labels.iter().any(|label| label.as_ref() == wanted))
    }
}

/// The name of `service` with these labels required beside those that it may require already, in the
/// one way that it is written.
pub fn requiring<L: AsRef<str>>(service: &str, labels: &[L]) -> Result<String, NameError> {
    let plain = Selector::parse(service)?;
    let mut all: Vec<&str> = plain.labels().chain(labels.iter().map(AsRef::as_ref)).collect();
    if !all.iter().all(|label| is_label(label)) {
        return Err(NameError::Label);
    }
    all.sort_unstable();
    all.dedup();
    if all.is_empty() {
        return Ok(service.into());
    }
    let name = format!("{}{{{}}}", plain.service, all.join(","));
    Selector::parse(&name)?;
    Ok(name)
}

/// Why a worker cannot offer these services with these labels, if it cannot.
pub fn objection_to_offer(services: &[&str], labels: &[&str]) -> Option<&'static str> {
    let is_plain = |name: &&str| Selector::parse(name).is_ok_and(|it| !it.is_selective());
    if !services.iter().all(is_plain) {
        Some(
            "READY: a worker offers services by their plain names, of 1 to 128 bytes, and labels beside them",
        )
    } else if labels.len() > LABELS_MAX || !labels.iter().all(|label| is_label(label)) {
        Some(
            "READY: up to 32 labels, each of 1 to 64 bytes without braces, commas, white space and control characters",
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::{NameError, Selector, objection_to_offer, requiring};

    fn labels(name: &str) -> Result<(&str, Vec<&str>), NameError> {
        Selector::parse(name).map(|it| (it.service, it.labels().collect()))
    }

    #[test]
    fn a_name_says_service_and_labels() {
        assert_eq!(labels("resize"), Ok(("resize", Vec::new())));
        assert_eq!(labels("resize{gpu}"), Ok(("resize", alloc::vec!["gpu"])));
        assert_eq!(labels("a b{gpu,numa=1}"), Ok(("a b", alloc::vec!["gpu", "numa=1"])));
    }

    #[test]
    fn there_is_one_way_to_write_a_name() {
        assert_eq!(labels(""), Err(NameError::Length(0)));
        assert_eq!(labels(&"x".repeat(129)), Err(NameError::Length(129)));
        for name in
            ["{gpu}", "a{gpu", "a}", "a{gpu}b", "a}{gpu}", "a{g{pu}", "a{gpu}}", "a{gpu}{x}"]
        {
            assert_eq!(labels(name), Err(NameError::Braces), "{name}");
        }
        for name in ["a{}", "a{,}", "a{gpu,}", "a{g pu}", "a{g\tpu}"] {
            assert_eq!(labels(name), Err(NameError::Label), "{name}");
        }
        assert_eq!(labels(&alloc::format!("a{{{}}}", "x".repeat(65))), Err(NameError::Label));
        for name in ["a{b,a}", "a{a,a}"] {
            assert_eq!(labels(name), Err(NameError::Order), "{name}");
        }
    }

    #[test]
    fn labels_are_added_in_their_order() {
        assert_eq!(requiring::<&str>("a", &[]).as_deref(), Ok("a"));
        assert_eq!(requiring("a", &["numa=1", "gpu", "gpu"]).as_deref(), Ok("a{gpu,numa=1}"));
        assert_eq!(requiring("a{m}", &["z", "b", "m"]).as_deref(), Ok("a{b,m,z}"));
        assert_eq!(requiring("a", &["b,c"]), Err(NameError::Label));
        assert_eq!(requiring("a", &[""]), Err(NameError::Label));
        assert_eq!(requiring(&"x".repeat(126), &["gpu"]), Err(NameError::Length(131)));
    }

    #[test]
    fn a_worker_has_what_is_required() {
        let name = Selector::parse("a{gpu,numa=1}").expect("a name");
        assert!(name.is_met_by(&["x", "numa=1", "gpu"]));
        assert!(!name.is_met_by(&["gpu", "numa=0"]));
        assert!(Selector::parse("a").expect("a name").is_met_by::<&str>(&[]));
    }

    #[test]
    fn an_offer_is_of_plain_names_and_labels() {
        assert_eq!(objection_to_offer(&["a", "b"], &["gpu"]), None);
        assert!(objection_to_offer(&["a{gpu}"], &[]).is_some());
        assert!(objection_to_offer(&[""], &[]).is_some());
        assert!(objection_to_offer(&["a"], &["g pu"]).is_some());
        let many: Vec<_> = (0..33).map(|number| alloc::format!("l{number}")).collect();
        let many: Vec<_> = many.iter().map(|label| &**label).collect();
        assert!(objection_to_offer(&["a"], &many).is_some());
        assert_eq!(objection_to_offer(&["a"], &many[1..]), None);
    }
}
