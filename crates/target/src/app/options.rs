//! The command line: SPDK's letters, and long names for what SPDK does not have.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use super::journal;
use crate::control::cpumask::CpuMask;

pub const HELP: &str = "\
Usage: nvlane-target [OPTIONS]

Serves block devices to virtual machines over vhost-user-blk and vhost-user-scsi.

Options that SPDK has too:
  -S DIR             directory of the controllers' sockets (default: where it is started)
  -m MASK            processors to poll on: 0x3 or [0-1] (default: 0x1)
  -r PATH            socket of the JSON-RPC server (default: /var/tmp/spdk.sock)
  -s MB              at most so much memory for malloc bdevs (default: as much as there is)
  -c FILE, --json    configuration to begin with, as `save_config` writes it
  --wait-for-rpc     wait for framework_start_init before anything is served
  -L FLAG            show all of the log that FLAG stands for; may be given several times
  -f FILE            write the process id to FILE
  -v, --version      print the version

Configuration:
  --state FILE       keep the configuration in FILE: saved on each change, re-created at the start
  --poll HOW         adaptive: sleep when there is nothing to do (default); always: never sleep, as SPDK does
  --log-level LEVEL  ERROR, WARNING, NOTICE (default), INFO or DEBUG
  --metrics WHERE    metrics for Prometheus: a socket that answers HTTP, or a file that ends in .prom

Sockets that listen already:
  --rpc-fd N         the JSON-RPC server's
  --vhost-fd NAME=N  controller NAME's; may be given several times

Confinement:
  --user NAME        become this user once everything is open
  --socket-group G   let this group connect to the sockets (mode 0660 instead of 0600)
  --allow-path PATH  files below PATH may be opened later, by RPC; may be given several times
  --no-confine       no seccomp filter, no Landlock rules
";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Poll {
    #[default]
    Adaptive,
    Always,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metrics {
    Socket(PathBuf),
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub sockets: PathBuf,
    pub cpus: CpuMask,
    pub rpc: PathBuf,
    pub rpc_fd: Option<RawFd>,
    pub vhost_fds: Vec<(String, RawFd)>,
    /// MiB
    pub memory: Option<u64>,
    pub configuration: Option<PathBuf>,
    pub state: Option<PathBuf>,
    pub wait_for_rpc: bool,
    pub poll: Poll,
    pub log_level: u8,
    pub log_flags: Vec<usize>,
    pub pid_file: Option<PathBuf>,
    pub metrics: Option<Metrics>,
    pub user: Option<String>,
    pub socket_group: Option<String>,
    pub allowed: Vec<PathBuf>,
    pub confine: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            sockets: PathBuf::from("."),
            cpus: CpuMask::from_cpus([0]),
            rpc: PathBuf::from("/var/tmp/spdk.sock"),
            rpc_fd: None,
            vhost_fds: Vec::new(),
            memory: None,
            configuration: None,
            state: None,
            wait_for_rpc: false,
            poll: Poll::Adaptive,
            log_level: 3,
            log_flags: Vec::new(),
            pid_file: None,
            metrics: None,
            user: None,
            socket_group: None,
            allowed: Vec::new(),
            confine: true,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    Run(Box<Options>),
    Text(String),
}

/// Reads the arguments, without the program's name.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let mut options = Options::default();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let argument =
            argument.into_string().map_err(|text| format!("`{}` is no UTF-8", text.to_string_lossy()))?;
        // -m0x3, -m 0x3, --poll=always and --poll always are all usual.
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(OsString::from(value))),
            _ if argument.starts_with("--") => (argument, None),
            _ if argument.starts_with('-') && argument.is_char_boundary(2) && argument.len() > 2 => {
                let (name, value) = argument.split_at(2);
                (name.to_owned(), Some(OsString::from(value)))
            }
            _ => (argument, None),
        };
        if matches!(name.as_str(), "--wait-for-rpc" | "--no-confine" | "-h" | "--help" | "-v" | "--version") {
            if attached.is_some() {
                return Err(format!("{name} takes no value"));
            }
            match name.as_str() {
                "--wait-for-rpc" => options.wait_for_rpc = true,
                "--no-confine" => options.confine = false,
                "-h" | "--help" => return Ok(Asked::Text(HELP.trim_end().to_owned())),
                _ => return Ok(Asked::Text(format!("nvlane-target {}", env!("CARGO_PKG_VERSION")))),
            }
            continue;
        }
        if !WITH_VALUE.contains(&name.as_str()) {
            return Err(format!("there is no option {name}"));
        }
        let value = attached.or_else(|| arguments.next()).ok_or_else(|| format!("{name} needs a value"))?;
        take(&mut options, &name, value)?;
    }
    if options.wait_for_rpc && options.state.is_some() {
        return Err("--wait-for-rpc and --state exclude each other: what is kept is served at once".into());
    }
    Ok(Asked::Run(Box::new(options)))
}

const WITH_VALUE: &[&str] = &[
    "-S",
    "-m",
    "-r",
    "-s",
    "-c",
    "--json",
    "-L",
    "-f",
    "--state",
    "--poll",
    "--log-level",
    "--metrics",
    "--rpc-fd",
    "--vhost-fd",
    "--user",
    "--socket-group",
    "--allow-path",
];

fn take(options: &mut Options, name: &str, value: OsString) -> Result<(), String> {
    let path = || PathBuf::from(&value);
    let text = || value.to_str().ok_or_else(|| format!("the value of {name} is no UTF-8"));
    match name {
        "-S" => options.sockets = path(),
        "-r" => options.rpc = path(),
        "-c" | "--json" => options.configuration = Some(path()),
        "-f" => options.pid_file = Some(path()),
        "--state" => options.state = Some(path()),
        "--allow-path" => options.allowed.push(path()),
        "--metrics" => {
            let file = path().extension().is_some_and(|extension| extension == "prom");
            options.metrics = Some(if file { Metrics::File(path()) } else { Metrics::Socket(path()) });
        }
        "-m" => options.cpus = CpuMask::parse(text()?)?,
        "-s" => {
            let digits = text()?.trim_end_matches(['M', 'B', 'i']);
            let wrong = || format!("-s {digits}: how many MiB, as a number");
            options.memory = Some(digits.parse().map_err(|_| wrong())?);
        }
        "-L" => {
            let flag = text()?;
            let index = journal::FLAGS.iter().position(|(name, _)| name.eq_ignore_ascii_case(flag));
            let known = || journal::FLAGS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            options.log_flags.push(index.ok_or_else(|| format!("-L {flag}: there are {}", known()))?);
        }
        "--poll" => {
            options.poll = match text()? {
                "adaptive" => Poll::Adaptive,
                "always" => Poll::Always,
                other => return Err(format!("--poll {other}: it is adaptive or always")),
            }
        }
        "--log-level" => {
            let level = text()?;
            let levels = || journal::LEVELS.join(", ");
            options.log_level = journal::level(level)
                .ok_or_else(|| format!("--log-level {level}: there are {}", levels()))?;
        }
        "--rpc-fd" => options.rpc_fd = Some(descriptor(name, text()?)?),
        "--vhost-fd" => {
            let value = text()?;
            let (controller, number) =
                value.rsplit_once('=').ok_or_else(|| format!("--vhost-fd {value}: it is NAME=N"))?;
            options.vhost_fds.push((controller.to_owned(), descriptor(name, number)?));
        }
        "--user" => options.user = Some(text()?.to_owned()),
        _ => options.socket_group = Some(text()?.to_owned()),
    }
    Ok(())
}

fn descriptor(name: &str, text: &str) -> Result<RawFd, String> {
    match text.parse() {
        Ok(number) if number > 2 => Ok(number),
        _ => Err(format!("{name} {text}: the number of a descriptor, from 3 on")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Asked::Run(options) => Ok(*options),
            Asked::Text(text) => Err(text),
        }
    }

    #[test]
    fn spdks_letters() {
        let options = run("-S /run/x -m 0x3 -r /run/x/rpc.sock -s 512 -c a.json --wait-for-rpc").unwrap();
        assert_eq!(options.sockets, PathBuf::from("/run/x"));
        assert_eq!(options.cpus.cpus(), [0, 1]);
        assert_eq!(options.memory, Some(512));
        assert!(options.wait_for_rpc && options.confine);
        assert_eq!(run("-m[0-1]").unwrap().cpus, options.cpus);
        assert_eq!(run("--json=a.json").unwrap().configuration, options.configuration);
        assert_eq!(run("-s 1024M").unwrap().memory, Some(1024));
    }

    #[test]
    fn our_own() {
        let options =
            run("--vhost-fd a=b=5 --vhost-fd vm0=6 --rpc-fd 3 --poll always --no-confine --log-level debug")
                .unwrap();
        assert_eq!(options.vhost_fds, [("a=b".to_owned(), 5), ("vm0".to_owned(), 6)]);
        assert_eq!(
            (options.rpc_fd, options.poll, options.log_level, options.confine),
            (Some(3), Poll::Always, 5, false)
        );
        assert_eq!(run("--metrics /m/a.prom").unwrap().metrics, Some(Metrics::File("/m/a.prom".into())));
        assert_eq!(run("--metrics /m/a.sock").unwrap().metrics, Some(Metrics::Socket("/m/a.sock".into())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, word) in [
            ("--bogus", "--bogus"),
            ("x", "no option x"),
            ("-m", "needs a value"),
            ("-m 0x0", "0x0"),
            ("-s many", "many"),
            ("--vhost-fd vm0", "NAME=N"),
            ("--rpc-fd 2", "from 3 on"),
            ("--poll often", "often"),
            ("--log-level LOUD", "LOUD"),
            ("-L nope", "nope"),
            ("--no-confine=1", "no value"),
            ("--wait-for-rpc --state s", "exclude"),
        ] {
            let why = run(line).unwrap_err();
            assert!(why.contains(word), "{line}: {why}");
        }
    }
}
