//! Names of services, as PROTOCOL.md has them, read by taking one apart and writing it anew.

use std::collections::BTreeSet;

use pinmesh_protocol::status::RefusedCode;

/// What a worker must offer and the labels that it must have; or why a session is refused that gives
/// the name a number.
pub(super) fn read(name: &str) -> Result<(&str, BTreeSet<&str>), RefusedCode> {
    if name.is_empty() || name.len() > 128 {
        return Err(RefusedCode::TooLarge);
    }
    // A comma in a name that requires nothing is the name's own.
    if !name.contains(['{', '}']) {
        return Ok((name, BTreeSet::new()));
    }
    let (service, rest) = name.split_once('{').ok_or(RefusedCode::Malformed)?;
    let rest = rest.split(['{', '}', ',']);
    let labels: BTreeSet<&str> = rest.filter(|part| !part.is_empty()).collect();
    let is_plain = |label: &&str| {
        label.len() <= 64 && !label.chars().any(|c| c.is_whitespace() || c.is_control())
    };
    let listed: Vec<&str> = labels.iter().copied().collect();
    let anew = format!("{service}{{{}}}", listed.join(","));
    let is_right = !service.is_empty()
        && !service.contains('}')
        && !labels.is_empty()
        && labels.iter().all(is_plain);
    if is_right && anew == name { Ok((service, labels)) } else { Err(RefusedCode::Malformed) }
}

impl super::Worker {
    /// Whether it offers what the service's name says, with all labels.
    pub(super) fn serves(&self, service: &str) -> bool {
        self.place_of(service).is_some()
    }

    /// The first place in its READY of what its tasks run there.
    pub(super) fn place_of(&self, service: &str) -> Option<usize> {
        // Whatever is held was read before: this is asked of every task and worker all the time.
        let (plain, required) = service.split_once('{').unwrap_or((service, ""));
        let mut labels = required.trim_end_matches('}').split(',').filter(|it| !it.is_empty());
        let has_all = labels.all(|label| self.labels.iter().any(|own| own == label));
        self.services.iter().position(|name| has_all && name == plain)
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn names_are_read_as_the_product_reads_them() {
        use pinmesh_protocol::selector::Selector;
        let long = "x".repeat(129);
        let names = [
            "a", "a,b", "a b", "", "a{gpu}", "a{b,c}", "a{c,b}", "a{b,b}", "a{}", "{b}", "a{b",
            "a}", "a{b}}", "a{{b}", "a{b}c", "a{b,}", "a{,b}", "a{b c}", "a}b{c}", "a{b}{c}",
            "a,b{c}", &long,
        ];
        for name in names {
            let product = Selector::parse(name).ok().map(|it| (it.service, it.labels().collect()));
            assert_eq!(read(name).ok(), product, "{name}");
        }
    }
}
