//! Logs: what is written is what is read.

// Clippy allows it in tests, but does not see that the helpers of an integration test are such.
#![allow(clippy::unwrap_used)]

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use pinmesh_histogram::{
    HistogramError, IntervalRecorder, LatencyLog, Precision, Stage, StageHistograms, read_log,
};

fn recorder(path: &Path, precision: Precision, now: Instant) -> IntervalRecorder {
    let log = LatencyLog::create(path, "test").unwrap();
    IntervalRecorder::with_log(precision, log, now).unwrap()
}

fn assert_same(one: &StageHistograms, other: &StageHistograms) {
    for stage in Stage::ALL {
        assert_eq!(one.summary(stage), other.summary(stage), "{stage}");
    }
}

#[test]
fn a_log_holds_every_interval_of_every_stage_and_their_overflow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hlog");
    let start = Instant::now();
    let mut recorder = recorder(&path, Precision::Bench, start);
    let mut expected = StageHistograms::new(Precision::Bench);
    for second in 1..=20_u64 {
        for number in 0..200 {
            let stage = Stage::ALL[(number % 4) as usize];
            let ns = number * second * 977 + if number == 0 { 61_000_000_000 } else { 0 };
            recorder.record(stage, ns);
            expected.record(stage, ns);
        }
        assert!(!recorder.is_due(start + Duration::from_millis(second * 1000 - 1)));
        let now = start + Duration::from_secs(second);
        assert!(recorder.is_due(now));
        assert!(recorder.rotate(now).is_none());
        // The writer may lag, which makes an interval longer: end it all the same.
        while recorder.is_due(now) {
            assert!(recorder.rotate(now).is_none());
            std::thread::yield_now();
        }
    }
    assert_same(&recorder.totals(), &expected);
    recorder.record(Stage::SendLag, 5);
    expected.record(Stage::SendLag, 5);
    let (totals, error) = recorder.finish(start + Duration::from_secs(21));
    assert!(error.is_none(), "{error:?}");
    assert_same(&totals, &expected);
    assert_same(&read_log(&path).unwrap(), &expected);

    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("#[StartTime: ") && text.contains("#[BaseTime: "), "{text}");
    assert!(text.contains("\nTag=broker_wait,0.0"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("Tag=transit,")).count(), 20);
}

#[test]
fn without_a_log_the_totals_are_the_same() {
    let start = Instant::now();
    let mut recorder = IntervalRecorder::new(Precision::Serving, start);
    let mut expected = StageHistograms::new(Precision::Serving);
    for ns in 1..=100 {
        recorder.record(Stage::Service, ns);
        expected.record(Stage::Service, ns);
        if ns % 30 == 0 {
            assert!(recorder.rotate(start + Duration::from_secs(ns)).is_none());
        }
    }
    assert_same(&recorder.totals(), &expected);
    assert_same(&recorder.finish(start).0, &expected);
}

#[test]
fn after_a_reset_only_later_values_count() {
    let start = Instant::now();
    let mut recorder = IntervalRecorder::new(Precision::Serving, start);
    recorder.record(Stage::Service, 1);
    recorder.rotate(start);
    recorder.record(Stage::Service, 2);
    recorder.reset(start);
    assert!(recorder.totals().is_empty());
    recorder.record(Stage::Service, 3);
    assert_eq!(recorder.finish(start).0.summary(Stage::Service).unwrap().max, 3);
}

#[test]
fn a_header_that_does_not_fit_on_the_disk_is_an_error_with_the_path() {
    let error = LatencyLog::create("/dev/full", "test").unwrap_err();
    assert!(matches!(error, HistogramError::Write { .. }), "{error}");
    assert!(error.to_string().contains("/dev/full"), "{error}");
}

#[test]
fn a_log_in_a_folder_that_is_not_there_is_an_error_with_its_path() {
    let error = LatencyLog::create("/nonexistent/a.hlog", "test").unwrap_err();
    assert!(matches!(error, HistogramError::Create { .. }));
    assert!(error.to_string().contains("/nonexistent/a.hlog"), "{error}");
    let error = read_log("/nonexistent/a.hlog").unwrap_err();
    assert!(matches!(error, HistogramError::Read { .. }));
}

#[test]
fn a_log_that_was_cut_off_is_read_up_to_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.hlog");
    let now = Instant::now();
    let mut recorder = recorder(&path, Precision::Serving, now);
    recorder.record(Stage::Service, 1_000);
    assert!(recorder.finish(now + Duration::from_secs(1)).1.is_none());
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"Tag=service,1.000,1.0").unwrap();
    assert_eq!(read_log(&path).unwrap().count(Stage::Service), 1);
}

#[test]
fn lines_of_others_are_skipped_and_nonsense_is_named_by_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixed.hlog");
    let now = Instant::now();
    let mut recorder = recorder(&path, Precision::Serving, now);
    recorder.record(Stage::Service, 1_000);
    assert!(recorder.finish(now + Duration::from_secs(1)).1.is_none());
    let text = fs::read_to_string(&path).unwrap();

    let foreign = text.replace("Tag=service", "Tag=gc_pause");
    fs::write(&path, format!("{text}# a comment\n{foreign}")).unwrap();
    assert_eq!(read_log(&path).unwrap().count(Stage::Service), 1);

    let lines = text.lines().count();
    for nonsense in ["what?\n", "Tag=service,1.0,1.0,1.0,%%%\n", "Tag=service,1.0,1.0,1.0,AAAA\n"] {
        fs::write(&path, format!("{text}{nonsense}")).unwrap();
        match read_log(&path) {
            Err(HistogramError::Malformed { line, .. }) => assert_eq!(line, lines + 1),
            other => panic!("{nonsense:?} was read as {other:?}"),
        }
    }
}
