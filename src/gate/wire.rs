use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::Shutdown;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Reads after which Linux no longer delays acknowledgements that a login waits for.
const PROMPT_READS: u8 = 30;

/// RFC 4253 section 4.2: the longest identification line.
const LONGEST_VERSION: usize = 255;

/// What others may do with a connection's socket while russh owns the reading and writing.
#[derive(Clone, Debug)]
pub struct Cord(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: TcpStream,
    /// Milliseconds to wait once, before the next read.
    pause: AtomicU64,
    version: Mutex<Vec<u8>>,
}

/// A client's socket as russh sees it.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    prompt: u8,
    named: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// `stall`: how long the client may leave what was sent unacknowledged, or its window shut.
    pub fn new(socket: TcpStream, stall: Duration) -> io::Result<(Self, Cord)> {
        socket.set_nodelay(true)?;
        let millis = u32::try_from(stall.as_millis()).unwrap_or(u32::MAX);
        // russh writes inside its loop and has no time limit of its own there.
        sockopt::set_tcp_user_timeout(&socket, millis)?;
        sockopt::set_socket_keepalive(&socket, true)?;
        let shared = Arc::new(Shared { socket, pause: AtomicU64::new(0), version: Mutex::default() });
        let cord = Cord(shared.clone());
        Ok((Self { shared, prompt: PROMPT_READS, named: false, pause: None }, cord))
    }

    fn after_read(&mut self, bytes: &[u8]) {
        if self.prompt > 0 {
            self.prompt -= 1;
            // The kernel goes back to delayed acknowledgements by itself. OpenSSH's client, with Nagle's algorithm on
            // until its session opens, then waits 40 ms between NEWKEYS and its service request.
            let _ = sockopt::set_tcp_quickack(&self.shared.socket, true);
        }
        if !self.named {
            let mut version = self.shared.version.lock().unwrap_or_else(PoisonError::into_inner);
            let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
            let room = LONGEST_VERSION.saturating_sub(version.len());
            version.extend(line.iter().take(room));
            self.named = line.len() < bytes.len() || version.len() >= LONGEST_VERSION;
        }
        match self.shared.pause.swap(0, Ordering::Relaxed) {
            0 => {}
            millis => self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_millis(millis)))),
        }
    }
}

impl Cord {
    /// Ends the connection, whatever russh is waiting for.
    pub fn cut(&self) {
        // Fails only when it is cut already.
        let _ = rustix::net::shutdown(&self.0.socket, Shutdown::Both);
    }

    /// Lets the client wait a little before its next bytes are read.
    pub fn pause(&self, millis: u64) {
        self.0.pause.store(millis, Ordering::Relaxed);
    }

    /// The client's identification line, as far as it is printable ASCII.
    pub fn version(&self) -> String {
        let version = self.0.version.lock().unwrap_or_else(PoisonError::into_inner);
        version.iter().filter(|b| (0x20..0x7f).contains(*b)).map(|b| char::from(*b)).collect()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        loop {
            ready!(self.shared.socket.poll_read_ready(cx))?;
            let space = buffer.initialize_unfilled();
            match self.shared.socket.try_read(space) {
                Ok(n) => {
                    let bytes = space.get(..n).unwrap_or_default();
                    self.after_read(bytes);
                    buffer.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.shared.socket.poll_write_ready(cx))?;
            match self.shared.socket.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(&self.shared.socket, Shutdown::Write).map_err(Into::into))
    }
}
