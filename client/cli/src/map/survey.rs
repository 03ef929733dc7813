//! What is known of a map before it begins: what it is, and its inputs by name.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::json;

use super::journal::Journal;
use crate::args::Map;
use crate::failure::Failure;
use crate::inputs::Source;
use crate::progress::Progress;

/// What must be the same when a map is resumed.
pub(super) fn about(source: &Source, args: &Map) -> serde_json::Value {
    let format = args.task.format.name();
    let (service, inputs) = (&args.service, source.kind());
    match args.output_dir {
        Some(_) => json!({ "service": service, "format": format, "inputs": inputs,
            "output": "folder", "suffix": args.suffix }),
        None => json!({ "service": service, "format": format, "inputs": inputs,
            "output": "file", "output-format": args.output_format.to_string(),
            "ordered": args.ordered }),
    }
}

/// Looks at all inputs by name, where that can be done twice: whether they are those of the journal,
/// and whether each has a result of its own. Returns how many there are.
pub(super) fn survey(
    source: &Source,
    args: &Map,
    journal: Option<&Journal>,
) -> Result<Option<u64>, Failure> {
    let has_places = args.output_dir.is_some();
    let is_of_use = has_places || journal.is_some() || Progress::is_wanted(args.progress);
    if !is_of_use || !source.is_replayable() {
        return Ok(None);
    }
    let mut names: HashMap<PathBuf, Vec<u8>> = HashMap::new();
    let mut count = 0;
    for input in source.inputs()? {
        if let Some(journal) = journal {
            journal.is_done(count, &input.name)?;
        }
        count += 1;
        let Some(place) = input.place.filter(|_| has_places) else { continue };
        if let Some(other) = names.get(&place) {
            return Err(Failure::usage(format!(
                "--output-dir: the results of `{}` and `{}` would both be `{}`; give their common \
                 folder, or map them one after the other to different folders",
                String::from_utf8_lossy(other),
                String::from_utf8_lossy(&input.name),
                place.display()
            )));
        }
        names.insert(place, input.name);
    }
    journal.map_or(Ok(()), |journal| journal.check_count(count))?;
    Ok(Some(count))
}
