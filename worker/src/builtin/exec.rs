//! `exec`: a program of the user's choice runs once for each task. It stands on the worker's command
//! line, never in a payload, and no shell reads it.

mod running;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{Access, access};

use crate::error::WorkerError;
use crate::handler::{Context, Failure, Input, Output};
use crate::worker::Worker;
use running::Running;

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// As the user wrote it: what the program sees as its own name, and what errors call it.
    name: OsString,
    arguments: Vec<OsString>,
}

impl Program {
    /// The program that the first word names, by its path or on the `PATH`, with the other words as
    /// its arguments.
    ///
    /// # Errors
    /// [`WorkerError::Flag`]: there is no word, or no such program.
    pub fn find(command: &[OsString]) -> Result<Self, WorkerError> {
        let Some((name, arguments)) = command.split_first() else {
            return Err(fault(
                OsStr::new(""),
                "it is missing; write it after `--`, as in `-- sort`",
            ));
        };
        let (name, arguments) = (name.clone(), arguments.to_vec());
        if name.as_encoded_bytes().contains(&b'/') {
            let path = PathBuf::from(&name);
            return match is_program(&path) {
                true => Ok(Self { path, name, arguments }),
                false => Err(fault(&name, "it is no file that may be executed; check the path")),
            };
        }
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&folders).map(|folder| folder.join(&name));
        match found.into_iter().find(|path| is_program(path)) {
            Some(path) => Ok(Self { path, name, arguments }),
            None => Err(fault(
                &name,
                "there is no such program on the PATH; install it, check the name, or give its path",
            )),
        }
    }

    /// Runs it once. What it writes is appended to `out`, `limit` bytes at most.
    fn run(
        &self,
        environment: &[(&str, String)],
        input: Input<'_>,
        limit: u64,
        is_cancelled: &dyn Fn() -> bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let mut command = Command::new(&self.path);
        std::os::unix::process::CommandExt::arg0(&mut command, &self.name);
        command.args(&self.arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = self.name.to_string_lossy();
        let mut running = Running::start(&mut command)
            .map_err(|error| format!("{name} could not be started: {error}"))?;
        match running.pump(input, limit, is_cancelled, out) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                let said = running.last_words();
                Err(format!("{name} {}{said}", how_it_ended(status)).into())
            }
            Err(running::Stop::Cancelled) => Err(format!("cancelled; {name} was killed").into()),
            // These two are mended by a person, not by another try.
            Err(running::Stop::TooLong) => Err(Failure::last(format!(
                "{name} wrote more than the {limit} bytes that the broker takes as a result and was \
                 killed; let it write less, or raise the broker's payload limit"
            ))),
            Err(running::Stop::HeldOpen) => Err(Failure::last(format!(
                "{name} ended, but a process that it started still holds its standard output open \
                 and was killed; let it wait for that process, or send its output elsewhere"
            ))),
            Err(running::Stop::System(call, error)) => {
                Err(format!("{name} was killed because {call} failed: {error}").into())
            }
        }
    }
}

fn fault(name: &OsStr, reason: &str) -> WorkerError {
    WorkerError::Flag {
        flag: "the command after `--`,",
        value: name.to_string_lossy().into_owned(),
        reason: reason.to_owned(),
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => match signal_hook::low_level::signal_name(signal) {
            Some(name) => format!("was killed by signal {signal} ({name})"),
            None => format!("was killed by signal {signal}"),
        },
        (None, None) => format!("ended as {status}"),
    }
}

/// Adds a service that runs `program` once for each task: the payload on its standard input, its
/// standard output as the result. An exit status other than 0, or a death by signal, is FAILED with
/// the end of its standard error, and is tried again while tries are left.
///
/// It runs on the worker's CPU, whose mask it inherits, in a process group of its own, which is
/// killed when the task is cancelled and with the worker. Its environment is the worker's and
/// `PINMESH_REQUEST_ID`, `PINMESH_CLIENT_ID`, `PINMESH_DISPATCH`, `PINMESH_TRIES`.
#[must_use]
pub fn exec_service(worker: Worker, name: impl Into<String>, program: Program) -> Worker {
    worker.raw_service(name, move |context: &Context<'_>, input: Input<'_>, output: &mut Output| {
        let environment = [
            ("PINMESH_REQUEST_ID", context.request_id().to_string()),
            ("PINMESH_CLIENT_ID", context.client_id().to_string()),
            ("PINMESH_DISPATCH", context.attempt().dispatch.to_string()),
            ("PINMESH_TRIES", context.tries().to_string()),
        ];
        let (limit, is_cancelled) = (context.payload_bytes_max(), || context.is_cancelled());
        program.run(&environment, input, limit, &is_cancelled, &mut output.bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::Pieces;

    fn program(words: &[&str]) -> Program {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Program::find(&words).unwrap()
    }

    fn run_with(
        words: &[&str],
        input: &[u8],
        limit: u64,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, String> {
        let (mut out, text) = (Vec::new(), |failure: Failure| failure.text);
        let environment = [("PINMESH_REQUEST_ID", "17".to_owned())];
        let input = Input { pieces: Pieces::One(input) };
        program(words).run(&environment, input, limit, is_cancelled, &mut out).map_err(text)?;
        Ok(out)
    }

    fn run(words: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
        run_with(words, input, 64 << 20, &|| false)
    }

    #[test]
    fn payloads_far_longer_than_a_pipe_go_in_and_come_out_at_once() {
        let input: Vec<u8> = (0..20_000_000_u32).map(|at| (at >> 8) as u8).collect();
        assert!(run(&["cat"], &input).unwrap() == input);
        let noisy = ["sh", "-c", "tee /dev/stderr"];
        assert!(run(&noisy, &input).unwrap() == input);
        assert_eq!(run(&["sort"], b"b\na\n").unwrap(), b"a\nb\n");
        assert_eq!(run(&["cat"], b"").unwrap(), b"");
    }

    #[test]
    fn a_program_that_reads_only_a_part_of_its_input_succeeds() {
        assert_eq!(run(&["head", "-c", "3"], &[b'x'; 1 << 20]).unwrap(), b"xxx");
        assert_eq!(run(&["true"], &[b'x'; 1 << 20]).unwrap(), b"");
    }

    #[test]
    fn a_failure_tells_the_status_and_the_end_of_standard_error() {
        let error = run(&["sh", "-c", "echo no such luck >&2; exit 3"], b"").unwrap_err();
        assert_eq!(error, "sh exited with 3: no such luck");
        let error = run(&["false"], b"").unwrap_err();
        assert_eq!(error, "false exited with 1 and wrote nothing to standard error");
        let error = run(&["sh", "-c", "kill -9 $$"], b"").unwrap_err();
        assert!(error.starts_with("sh was killed by signal 9 (SIGKILL)"), "{error}");
        let script = "head -c 100000 /dev/zero | tr '\\0' x >&2; printf '\\377end' >&2; exit 1";
        let error = run(&["sh", "-c", script], b"").unwrap_err();
        assert!(error.ends_with("xx\u{fffd}end"), "{error}");
        assert!(error.len() < 2_200, "{}", error.len());
    }

    #[test]
    fn more_output_than_the_limit_kills_the_program() {
        let error = run_with(&["yes"], b"", 100_000, &|| false).unwrap_err();
        assert!(error.starts_with("yes wrote more than the 100000 bytes"), "{error}");
        let out = run_with(&["head", "-c", "100000", "/dev/zero"], b"", 100_000, &|| false);
        assert_eq!(out.unwrap().len(), 100_000);
    }

    #[test]
    fn a_cancel_kills_the_program_and_what_it_started() {
        let looks = std::cell::Cell::new(0);
        let is_cancelled = || looks.replace(looks.get() + 1) > 0;
        // Both would outlast the test; the pipe that they hold would never end.
        let words = ["sh", "-c", "sleep 1000 & sleep 1000"];
        let error = run_with(&words, b"", 1 << 20, &is_cancelled).unwrap_err();
        assert_eq!(error, "cancelled; sh was killed");
    }

    #[test]
    fn a_process_that_stays_behind_with_the_output_fails_the_task() {
        let error = run(&["sh", "-c", "sleep 1000 & echo x"], b"").unwrap_err();
        assert!(error.contains("still holds its standard output"), "{error}");
        // One that holds only standard error is none of the result's business.
        let out = run(&["sh", "-c", "sleep 1000 >/dev/null & echo x"], b"").unwrap();
        assert_eq!(out, b"x\n");
    }

    #[test]
    fn the_program_knows_its_request_and_its_name_and_no_shell_reads_its_arguments() {
        let out = run(&["sh", "-c", "echo $PINMESH_REQUEST_ID $0"], b"").unwrap();
        assert_eq!(out, b"17 sh\n");
        assert_eq!(run(&["echo", "$HOME", "a  b", ";"], b"").unwrap(), b"$HOME a  b ;\n");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_before_any_task() {
        for (word, remedy) in [
            ("pinmesh-no-such-program", "on the PATH; install it"),
            ("/no/such/program", "check the path"),
            ("/etc/passwd", "check the path"),
            ("/usr", "check the path"),
        ] {
            let error = Program::find(&[word.into()]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let error = error.to_string();
            assert!(error.contains(word) && error.contains(remedy), "{error}");
        }
        assert!(Program::find(&[]).unwrap_err().to_string().contains("-- sort"));
    }
}
