//! The chaos campaign; `scripts/chaos.sh` builds what it needs and runs it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pinmesh_tests::chaos::{Fault, Kind, Report, Timing, run_all};

/// Damages meshes of real processes under load, each kind of damage on a mesh of its own, side by
/// side, and accounts for every task. Needs root for network namespaces.
#[derive(Parser)]
struct Flags {
    /// How often each kind of damage is done [default: kills 50, stops and cuts 5]
    #[arg(long)]
    rounds: Option<usize>,
    /// Short leases, short damage
    #[arg(long)]
    fast: bool,
    /// Folder for the records [default: a temporary one]. Kept if a promise was broken
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Kinds of damage [default: all]
    kinds: Vec<Kind>,
}

impl Flags {
    fn rounds(&self, kind: Kind) -> usize {
        match kind {
            Kind::SlowLink => 1,
            Kind::Signal(Fault::Kill, _) => self.rounds.unwrap_or(50),
            Kind::Signal(Fault::Stop, _) | Kind::Cut(_) => self.rounds.unwrap_or(5),
        }
    }
}

fn row(report: &Report) {
    let Report { kind, rounds, verdict, took, .. } = report;
    let (resume, back) = (verdict.resume.as_secs_f64(), verdict.back.as_secs_f64());
    let word = if verdict.violation_count == 0 { "held" } else { "BROKEN" };
    println!(
        "{kind:<16} {rounds:>6} {:>8} {:>9} {:>9} {:>9} {:>8} {:>8} {:>9} {resume:>8.2} s \
         {back:>8.2} s {:>6} s  {word}",
        verdict.tasks,
        verdict.attempts,
        verdict.cut_short,
        verdict.repeated,
        verdict.excused,
        verdict.crashed,
        verdict.unclaimed,
        took.as_secs()
    );
}

fn main() -> ExitCode {
    let mut flags = Flags::parse();
    if flags.kinds.is_empty() {
        flags.kinds = Kind::all();
    }
    let kept;
    let root = match &flags.folder {
        Some(folder) => folder.clone(),
        None => {
            kept = tempfile::Builder::new().prefix("pinmesh-chaos-").tempdir();
            kept.map_or_else(|error| panic!("no temporary folder: {error}"), |it| it.keep())
        }
    };
    let timing = if flags.fast { Timing::fast() } else { Timing::shipped() };
    let kinds: Vec<(Kind, usize)> =
        flags.kinds.iter().map(|kind| (*kind, flags.rounds(*kind))).collect();
    println!(
        "kind             rounds    tasks  attempts cut short  repeated  excused  crashed \
         unclaimed   resumed  back after     took  promises"
    );
    let reports = run_all(&kinds, &timing, &root, row);
    let broken: Vec<&Report> =
        reports.iter().filter(|report| report.verdict.violation_count > 0).collect();
    for Report { kind, verdict, folder, .. } in &broken {
        println!("\n{kind}: {} violations; {}", verdict.violation_count, folder.display());
        verdict.violations.iter().for_each(|violation| println!("  {violation}"));
    }
    if broken.is_empty() {
        if flags.folder.is_none() {
            let _ = std::fs::remove_dir_all(&root);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nthe records are in {}", root.display());
    ExitCode::FAILURE
}
