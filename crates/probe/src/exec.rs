//! Running a program in the guest, with a deadline and with bounded output.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::methods::milliseconds;
use crate::protocol::{Answer, Code, Fault, params, value};

/// The most that is kept of each stream, in bytes.
const MOST_OUTPUT: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exec {
    argv: Vec<String>,
    #[serde(default)]
    stdin: String,
    #[serde(default = "default_timeout")]
    timeout_ms: u64,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

fn default_timeout() -> u64 {
    60_000
}

#[derive(Serialize)]
pub struct Done {
    /// The exit status, or null when a signal ended the program.
    pub status: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// Whether output past one MiB of a stream was dropped.
    pub truncated: bool,
}

/// `exec {argv, stdin, timeout_ms, env}`. A program that misses its deadline is killed with all its process group.
pub fn exec(given: Map<String, Value>) -> Answer {
    let wanted: Exec = params(given)?;
    value(run(&wanted.argv, &wanted.stdin, &wanted.env, milliseconds(wanted.timeout_ms))?)
}

/// Run a tool that must succeed; gives its standard output.
pub fn tool(argv: &[&str]) -> Result<String, Fault> {
    let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
    let done = run(&argv, "", &BTreeMap::new(), milliseconds(default_timeout()))?;
    if done.status == Some(0) {
        return Ok(done.stdout);
    }
    let how = done
        .status
        .map_or_else(|| format!("signal {}", done.signal.unwrap_or(0)), |status| format!("status {status}"));
    Err(Fault::new(Code::Failed, format!("{} ended with {how}: {}", argv.join(" "), done.stderr.trim())))
}

/// Where programs are looked for. The kernel gives process 1 no PATH.
pub fn search_path() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into())
}

fn run(
    argv: &[String],
    input: &str,
    env: &BTreeMap<String, String>,
    timeout: Duration,
) -> Result<Done, Fault> {
    use std::os::unix::process::CommandExt;
    let [program, arguments @ ..] = argv else { return Err(Fault::new(Code::BadRequest, "argv is empty")) };
    let failed = |error: io::Error| {
        let code = if error.kind() == io::ErrorKind::NotFound { Code::NoTool } else { Code::Failed };
        Fault { code, ..Fault::io(format!("run {program}"), error) }
    };
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", search_path()).envs(env).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    feed(&mut child, input);
    let output = collect(child.stdout.take());
    let errors = collect(child.stderr.take());
    let status = wait_until(&mut child, timeout).map_err(failed)?;
    let (stdout, cut_out) = output.join().unwrap_or_default();
    let (stderr, cut_err) = errors.join().unwrap_or_default();
    let Some(status) = status else {
        let message = format!("{program} did not end within {} ms: {}", timeout.as_millis(), stderr.trim());
        return Err(Fault::new(Code::Deadline, message));
    };
    Ok(Done { status: status.code(), signal: status.signal(), stdout, stderr, truncated: cut_out || cut_err })
}

/// Give a child its input from a thread of its own: a child that reads nothing must not block us.
fn feed(child: &mut Child, input: &str) {
    if let Some(mut pipe) = child.stdin.take() {
        let input = input.to_owned();
        // A child may end without reading everything; EPIPE is then its own business.
        thread::spawn(move || pipe.write_all(input.as_bytes()).ok());
    }
}

/// Read a stream to its end, and keep the first MOST_OUTPUT bytes of it.
fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<(String, bool)> {
    thread::spawn(move || {
        let Some(mut stream) = stream else { return Default::default() };
        let mut kept = Vec::new();
        let mut failed = stream.by_ref().take(MOST_OUTPUT as u64).read_to_end(&mut kept).is_err();
        failed |= io::copy(&mut stream, &mut io::sink()).map_or(true, |rest| rest > 0);
        (String::from_utf8_lossy(&kept).into_owned(), failed)
    })
}

/// The child's status, or `None` after it had to be killed at its deadline.
///
/// The waiting thread uses WNOWAIT: the child stays a zombie, so its number cannot be another's when it is killed.
fn wait_until(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let group = Pid::from_child(child);
    let (send, receive) = channel();
    let waiter = thread::spawn(move || {
        let ended = waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        // Nobody listens any more when the deadline has passed.
        send.send(ended).ok();
    });
    let outcome = receive.recv_timeout(timeout);
    if matches!(outcome, Err(RecvTimeoutError::Timeout)) {
        kill_process_group(group, Signal::KILL)?;
    }
    drop(waiter.join());
    let status = child.wait()?;
    Ok(outcome.is_ok().then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Instant;

    fn call(given: Value) -> Answer {
        exec(given.as_object().expect("an object").clone())
    }

    #[test]
    fn output_status_and_environment_are_given() {
        let argv = ["sh", "-c", "cat; echo $WORD >&2; exit 3"];
        let done = call(json!({"argv": argv, "stdin": "in", "env": {"WORD": "w"}})).expect("it ran");
        assert_eq!(
            done,
            json!({"status": 3, "signal": null, "stdout": "in", "stderr": "w\n", "truncated": false})
        );
    }

    #[test]
    fn a_signal_is_no_status() {
        let done = call(json!({"argv": ["sh", "-c", "kill -9 $$"]})).expect("it ran");
        assert_eq!((&done["status"], &done["signal"]), (&Value::Null, &json!(9)));
    }

    #[test]
    fn a_deadline_kills_the_whole_group() {
        let start = Instant::now();
        let fault =
            call(json!({"argv": ["sh", "-c", "sleep 60 & sleep 60"], "timeout_ms": 100})).expect_err("late");
        assert_eq!(fault.code, Code::Deadline);
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn output_is_bounded() {
        let done = call(json!({"argv": ["head", "-c", "3000000", "/dev/zero"]})).expect("it ran");
        assert_eq!(done["stdout"].as_str().expect("text").len(), MOST_OUTPUT);
        assert_eq!(done["truncated"], true);
    }

    #[test]
    fn a_missing_program_says_so() {
        assert_eq!(call(json!({"argv": ["no-such-program"]})).expect_err("missing").code, Code::NoTool);
        assert_eq!(call(json!({"argv": []})).expect_err("empty").code, Code::BadRequest);
    }
}
