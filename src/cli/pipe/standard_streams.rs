//! Standard input and output beside an executor.
//!
//! Each has a thread, because reads and writes may wait for ever. Both hold one chunk at a time, so a slow side slows the other.

use std::io::{self, Read, Write};
use std::thread;

use async_channel::{Receiver, Sender, bounded};

/// Reads standard input in chunks of at most this many bytes.
///
/// The channel is closed at its end, or behind an error.
pub(super) fn input(longest: usize) -> Receiver<io::Result<Vec<u8>>> {
    let (chunks, receiver) = bounded(1);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut chunk = vec![0; longest];
            let read = match stdin.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    chunk.truncate(count);
                    Ok(chunk)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_last = read.is_err();
            if chunks.send_blocking(read).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// Standard output. It is closed when everything is written.
#[derive(Debug)]
pub(super) struct Output {
    chunks: Sender<Vec<u8>>,
    written: Receiver<io::Result<()>>,
}

impl Output {
    pub(super) fn new() -> Self {
        let (chunks, receiver) = bounded(1);
        let (result, written) = bounded(1);
        thread::spawn(move || result.send_blocking(write(&receiver)));
        Self { chunks, written }
    }

    /// Waits for room, and gives the chunk to the thread.
    pub(super) async fn put(&self, chunk: Vec<u8>) -> io::Result<()> {
        match self.chunks.send(chunk).await {
            Ok(()) => Ok(()),
            Err(_) => self.finish().await.and(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Waits until everything is written and standard output is closed.
    pub(super) async fn finish(&self) -> io::Result<()> {
        self.chunks.close();
        // A second call finds the channel closed, and nothing left to write.
        self.written.recv().await.unwrap_or(Ok(()))
    }
}

fn write(chunks: &Receiver<Vec<u8>>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    while let Ok(chunk) = chunks.recv_blocking() {
        let written = stdout.write_all(&chunk).and_then(|()| stdout.flush());
        if written.is_err() {
            chunks.close();
            return written;
        }
    }
    close()
}

/// Closes standard output, so that its reader sees the end while this process goes on.
#[cfg(unix)]
fn close() -> io::Result<()> {
    // The number stays in use: a file that is opened later would get it, and what is printed to it.
    Ok(rustix::stdio::dup2_stdout(std::fs::OpenOptions::new().write(true).open("/dev/null")?)?)
}

/// Elsewhere it is closed when the process ends.
#[cfg(not(unix))]
fn close() -> io::Result<()> {
    Ok(())
}
