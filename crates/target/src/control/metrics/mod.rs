//! Metrics for Prometheus, on a socket that answers HTTP or in a file for node_exporter's textfile collector.

mod text;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::core::Core;

/// Numbers of the metrics' descriptors in the epoll set of the control thread.
pub const TOKENS: std::ops::Range<u64> = 1 << 61..1 << 62;
const LISTENER: u64 = TOKENS.start;
/// A request's head is shorter; a longer one is no scraper's.
const MAX_HEAD: usize = 8192;
const MAX_CLIENTS: usize = 16;
/// A client that is not done by then is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the file is written.
const INTERVAL: Duration = Duration::from_secs(10);

pub enum Metrics {
    Socket(Scraped),
    File { path: PathBuf, due: Instant },
}

pub struct Scraped {
    epoll: OwnedFd,
    listener: OwnedFd,
    clients: BTreeMap<u64, Client>,
    next: u64,
}

struct Client {
    stream: OwnedFd,
    head: Vec<u8>,
    /// Once the request was read.
    answer: Option<Vec<u8>>,
    until: Instant,
}

impl Metrics {
    pub fn on_socket(epoll: OwnedFd, listener: OwnedFd) -> io::Result<Metrics> {
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        Ok(Metrics::Socket(Scraped { epoll, listener, clients: BTreeMap::new(), next: LISTENER + 1 }))
    }

    pub fn in_file(path: PathBuf) -> Metrics {
        Metrics::File { path, due: Instant::now() }
    }

    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Metrics::Socket(scraped) => scraped.clients.values().map(|client| client.until).min(),
            Metrics::File { due, .. } => Some(*due),
        }
    }

    pub fn ready(&mut self, token: u64, core: &Core) {
        if let Metrics::Socket(scraped) = self {
            match token {
                LISTENER => scraped.accept(),
                client => scraped.serve(client, core),
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, core: &Core) {
        let now = Instant::now();
        match self {
            Metrics::Socket(scraped) => scraped.clients.retain(|_, client| client.until > now),
            Metrics::File { path, due } if *due <= now => {
                *due = now + INTERVAL;
                if let Err(error) = write(path, &text::render(core)) {
                    log::warn!("metrics: {}: {error}", path.display());
                }
            }
            Metrics::File { .. } => {}
        }
    }
}

/// A collector sees the old file or the new one. It need not outlive a power cut.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("prom.new");
    std::fs::write(&draft, text)?;
    // Everything here is made for the owner alone; metrics are for a collector of another user.
    std::fs::set_permissions(&draft, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    std::fs::rename(&draft, path)
}

impl Scraped {
    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(stream) = rustix::net::accept_with(&self.listener, flags) {
            let number = self.next;
            self.next += 1;
            let data = epoll::EventData::new_u64(number);
            if self.clients.len() < MAX_CLIENTS
                && epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN).is_ok()
            {
                let until = Instant::now() + PATIENCE;
                self.clients.insert(number, Client { stream, head: Vec::new(), answer: None, until });
            }
        }
    }

    fn serve(&mut self, number: u64, core: &Core) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let goes_on = match client.answer {
            None => client.read(core, &self.epoll, number),
            Some(_) => true,
        };
        if !goes_on || client.send() {
            self.clients.remove(&number);
        }
    }
}

impl Client {
    /// False: there will be no request.
    fn read(&mut self, core: &Core, epoll: &OwnedFd, number: u64) -> bool {
        let mut piece = [0u8; 2048];
        match rustix::net::recv(&self.stream, &mut piece, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return false,
            Ok((length, _)) => self.head.extend_from_slice(&piece[..length]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
            Err(_) => return false,
        }
        let whole = self.head.windows(4).any(|end| end == b"\r\n\r\n")
            || self.head.windows(2).any(|end| end == b"\n\n");
        if !whole {
            return self.head.len() <= MAX_HEAD;
        }
        self.answer = Some(answer(&self.head, || text::render(core)));
        let data = epoll::EventData::new_u64(number);
        epoll::modify(epoll, self.stream.as_fd(), data, epoll::EventFlags::OUT).is_ok()
    }

    /// True: it has everything, or is gone.
    fn send(&mut self) -> bool {
        let Some(answer) = &mut self.answer else { return false };
        match rustix::net::send(&self.stream, answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(length) => {
                answer.drain(..length);
                answer.is_empty()
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(_) => true,
        }
    }
}

/// The answer to a request's head (RFC 9112): GET or HEAD of `/metrics`, or of `/`.
fn answer(head: &[u8], page: impl FnOnce() -> String) -> Vec<u8> {
    let first =
        String::from_utf8_lossy(head.split(|byte| *byte == b'\n').next().unwrap_or_default()).into_owned();
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics" | "/") => ("200 OK", page()),
        ("GET" | "HEAD", _) => ("404 Not Found", "There is /metrics.\n".to_owned()),
        _ => ("405 Method Not Allowed", "There is GET.\n".to_owned()),
    };
    let shown = if method == "HEAD" { "" } else { body.as_str() };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{shown}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_answered_as_http_wants() {
        let ask = |head: &str| String::from_utf8(answer(head.as_bytes(), || "a 1\n".into())).unwrap();
        assert!(ask("GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(
            ask("GET /metrics?x=1 HTTP/1.1\r\n\r\n")
                .ends_with("Content-Length: 4\r\nConnection: close\r\n\r\na 1\n")
        );
        assert!(ask("HEAD / HTTP/1.0\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(ask("GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(ask("\n\n").starts_with("HTTP/1.1 405"));
    }
}
